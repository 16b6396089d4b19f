//! Promotes and demotes the volumes of a resource again and again and prints what each pair took, in milliseconds:
//! `cargo run -p drbd-nl --example role_pairs -- RESOURCE COUNT`.

#![expect(clippy::print_stdout, reason = "a program of its own")]

use std::{env, error::Error, time::Instant};

use drbd_nl::{Drbd, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, count] = &arguments[..] else { return Err("usage: role_pairs RESOURCE COUNT".into()) };
    let mut drbd = Drbd::open()?;
    let resource = drbd.resource(name)?.ok_or_else(|| format!("no resource {name}"))?;
    let volumes: Vec<Target> = resource.volumes.iter().map(|volume| resource.target(volume)).collect();
    for _ in 0..count.parse()? {
        let begin = Instant::now();
        volumes.iter().try_for_each(|volume| drbd.primary(volume, false).map(drop))?;
        volumes.iter().try_for_each(|volume| drbd.secondary(volume).map(drop))?;
        println!("{:.3}", begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
