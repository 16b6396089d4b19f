//! Promotes or demotes all volumes of a resource: `cargo run -p drbd-nl --example role -- primary|secondary RESOURCE`.

use std::{env, error::Error};

use drbd_nl::{Drbd, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [role, name] = &arguments[..] else { return Err("usage: role primary|secondary RESOURCE".into()) };
    let mut drbd = Drbd::open()?;
    let resource = drbd.resource(name)?.ok_or_else(|| format!("no resource {name}"))?;
    for volume in resource.volumes.iter().map(|volume| resource.target(volume)) {
        change(&mut drbd, role, &volume)?;
    }
    Ok(())
}

fn change(drbd: &mut Drbd, role: &str, volume: &Target) -> Result<(), Box<dyn Error>> {
    match role {
        "primary" => drbd.primary(volume, false)?,
        "secondary" => drbd.secondary(volume)?,
        _ => return Err(format!("{role} is no role").into()),
    };
    Ok(())
}
