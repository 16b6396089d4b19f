//! Prints the state of all resources, as one would read `/proc/drbd`: `cargo run -p drbd-nl --example status [-- RESOURCE]`.

#![expect(clippy::print_stdout, reason = "a program of its own")]

use drbd_nl::{ConnectionStatus, Drbd, ResourceStatus};

fn main() -> Result<(), drbd_nl::Error> {
    let mut drbd = Drbd::open()?;
    let resources = match std::env::args().nth(1) {
        Some(name) => drbd.resource(&name)?.into_iter().collect(),
        None => drbd.status()?,
    };
    resources.iter().for_each(print);
    Ok(())
}

fn print(resource: &ResourceStatus) {
    println!("{} {}", resource.name, resource.role);
    for volume in &resource.volumes {
        let disk = volume.backing_dev.as_deref().unwrap_or("-");
        let mebibytes = volume.size_sectors / 2048;
        println!("  volume {} minor {} {} {mebibytes} MiB {disk}", volume.volume, volume.minor, volume.disk_state);
    }
    resource.connections.iter().for_each(print_connection);
}

fn print_connection(connection: &ConnectionStatus) {
    println!("  {} {} {} {}", connection.my_addr, connection.peer_addr, connection.state, connection.peer_role);
    for device in &connection.peer_devices {
        let done = device.resync_done.map(|done| format!(" {:.1}%", 100.0 * done)).unwrap_or_default();
        println!("    volume {} {} {}{done}", device.volume, device.repl_state, device.peer_disk_state);
    }
}
