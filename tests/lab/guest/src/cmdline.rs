//! The guest's parameters, from the kernel command line: `lab.NAME=VALUE`.
//!
//! ```text
//! lab.name=vm0 lab.ip=10.97.0.10/24 lab.rate=20 lab.area_mb=24 lab.dirty_kbs=0 lab.disks=xvda,xvdb
//! ```

use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Context, bail};

/// What the command line says, with the defaults filled in. Units are those of the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// `lab.name`: goes into each report.
    pub name: String,
    /// `lab.ip`: address and prefix length of eth0; none leaves the network alone.
    pub address: Option<Address>,
    /// `lab.rate`: numbers per second.
    pub rate_hz: u32,
    /// `lab.area_mb`: MiB of memory whose contents are checked.
    pub area_mib: usize,
    /// `lab.dirty_kbs`: KiB per second of it that are rewritten.
    pub dirty_kib_s: u64,
    /// `lab.disks`: data disks under /dev, separated by commas.
    pub disks: Vec<String>,
}

/// An address with the network that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix, 0 to 30: a network with a broadcast address.
    pub prefix_len: u8,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            name: "guest".to_owned(),
            address: None,
            rate_hz: 20,
            area_mib: 24,
            dirty_kib_s: 0,
            disks: vec!["xvda".to_owned()],
        }
    }
}

impl Parameters {
    /// Reads the kernel command line. What does not begin with `lab.` is the kernel's.
    ///
    /// # Errors
    /// An unknown `lab.` parameter, or a value that cannot be read.
    pub fn parse(cmdline: &str) -> anyhow::Result<Self> {
        let mut parameters = Self::default();
        for word in cmdline.split_whitespace() {
            if let Some((key, value)) = word.strip_prefix("lab.").and_then(|word| word.split_once('=')) {
                parameters.set(key, value).with_context(|| format!("Parameter {word} is of no use"))?;
            }
        }
        Ok(parameters)
    }

    fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        match key {
            "name" => value.clone_into(&mut self.name),
            "ip" => self.address = Some(value.parse()?),
            "rate" => self.rate_hz = value.parse()?,
            "area_mb" => self.area_mib = value.parse()?,
            "dirty_kbs" => self.dirty_kib_s = value.parse()?,
            "disks" => self.disks = value.split(',').filter(|disk| !disk.is_empty()).map(str::to_owned).collect(),
            _ => bail!("There is no parameter lab.{key}"),
        }
        Ok(())
    }
}

impl Address {
    /// The address that reaches all of the network.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        let hosts = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
        Ipv4Addr::from(u32::from(self.ip) | hosts)
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (ip, prefix_len) = text.split_once('/').context("An address needs the length of its prefix")?;
        let prefix_len = prefix_len.parse()?;
        if prefix_len > 30 {
            bail!("A prefix of {prefix_len} bits leaves no broadcast address");
        }
        Ok(Self { ip: ip.parse()?, prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_are_left_alone() {
        let parameters =
            Parameters::parse("console=hvc0 quiet lab.name=vm1 lab.ip=10.97.0.11/24 lab.disks=xvda,xvdb").unwrap();
        assert_eq!(parameters.name, "vm1");
        assert_eq!(parameters.disks, ["xvda", "xvdb"]);
        assert_eq!(parameters.rate_hz, 20);
        assert_eq!(parameters.address.unwrap().broadcast(), Ipv4Addr::new(10, 97, 0, 255));
    }

    #[test]
    fn no_disks_can_be_asked_for() {
        assert!(Parameters::parse("lab.disks=").unwrap().disks.is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for word in ["lab.rat=20", "lab.rate=fast", "lab.ip=10.97.0.11", "lab.ip=10.97.0.11/31"] {
            let error = Parameters::parse(word).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
