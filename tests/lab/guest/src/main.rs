//! One static program under three names: `/init` of the lab's guest, `/sbin/poweroff` and `/sbin/reboot`.

use lab_guest::{console::say, init};

fn main() {
    let name = std::env::args().next().unwrap_or_default();
    let result = match name.rsplit('/').next().unwrap_or_default() {
        "poweroff" => init::ask_for(init::Ending::PowerOff),
        "reboot" => init::ask_for(init::Ending::Reboot),
        _ => init::run(),
    };
    if let Err(error) = result {
        say(format_args!("{error:#}"));
        std::process::exit(1);
    }
}
