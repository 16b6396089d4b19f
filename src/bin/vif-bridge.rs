//! The nic hotplug program, run by libxl: `vif-bridge online|offline type_if=vif`, `vif-bridge add|remove type_if=tap`, with
//! `XENBUS_PATH` and `vif` or `INTERFACE` in the environment. Installed in Xen's directory of scripts.

use std::process::ExitCode;

use bascule::hotplug::vif::{Action, Arguments, Call, Port};
use bascule::hotplug::{Backend, chain};
use bascule::xen::xenstore::Xenstore;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    log.without_time().with_target(false).with_ansi(false).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments = Arguments::parse(&arguments)?;
    let xenstore = Xenstore::open()?;
    let path = variable("XENBUS_PATH")?;
    let backend = Backend::new(&xenstore, &path)?;
    let interface = match arguments.port {
        Port::Vif => variable("vif")?,
        Port::Tap => variable("INTERFACE")?,
    };
    let call = Call::new(backend, arguments.port, &interface, arguments.bridge);
    let result = match arguments.action {
        Action::Connect => call.connect(),
        Action::Disconnect => call.disconnect(),
        Action::Nothing => Ok(()),
    };
    result.map_err(|error| {
        // libxl shows this node; a failure to write it must not hide the failure itself.
        drop(backend.report(&chain(&error)));
        error.into()
    })
}

fn variable(name: &str) -> Result<String, Error> {
    std::env::var(name).map_err(|_| format!("{name} is not set; this program is run by libxl").into())
}

#[expect(clippy::print_stderr, reason = "libxl gives the program its own stderr")]
fn complain(message: &str) {
    eprintln!("vif-bridge: {message}");
}
