//! Volumes: `device`, `disk`, `meta-disk`, alone or within `volume N { }`.

use crate::model::{MetaDisk, Volume};
use crate::place::shown;
use crate::reader::{Reader, Step, claim};
use crate::token::{Kind, Token};

/// The highest minor (linux/kdev_t.h, MINORBITS).
const MINOR_MAX: u32 = (1 << 20) - 1;
/// The most volumes of a host.
const VOLUMES_MAX: usize = 4096;

impl Reader<'_> {
    /// `{ }` of `volume N`. `of` are the hosts whose section it stands in.
    pub(crate) fn volume(&mut self, number: u32, of: Option<&[String]>, line: u32) -> Step<Volume> {
        self.punctuation(b'{')?;
        let mut volume = Volume::new(number, self.place(line));
        self.section(|reader, token| reader.volume_statement(&token, &mut volume, of));
        Ok(volume)
    }

    pub(crate) fn volume_statement(&mut self, token: &Token, volume: &mut Volume, of: Option<&[String]>) -> Step<()> {
        let line = token.line;
        let word = if token.kind == Kind::Word { token.text.as_str() } else { "" };
        match word {
            "device" => self.device(volume, of, line)?,
            "disk" => self.disk(volume)?,
            "meta-disk" => volume.meta_disk = Some(self.meta_disk()?),
            "flexible-meta-disk" => {
                let path = self.string("a device")?;
                self.punctuation(b';')?;
                volume.meta_disk = Some(internal(path));
            }
            // Of later versions than the one that this reader is compared with.
            "tiebreaker" => {
                self.string_or_flag()?;
                self.remark(line, "tiebreaker is not looked at");
            }
            "skip" => self.skip(line),
            _ => return Err(self.unexpected(token.clone(), "device, disk or meta-disk")),
        }
        Ok(())
    }

    fn string_or_flag(&mut self) -> Step<()> {
        let token = self.next();
        match token.is("yes") || token.is("no") {
            true => self.punctuation(b';'),
            false => Err(self.unexpected(token, "yes or no")),
        }
    }

    fn disk(&mut self, volume: &mut Volume) -> Step<()> {
        let token = self.next();
        if token.is_punctuation(b'{') {
            (volume.disk_options, volume.peer_device_options) = self.disk_options();
            return Ok(());
        }
        if !token.is_string() {
            return Err(self.unexpected(token, "a device or '{'"));
        }
        self.punctuation(b';')?;
        volume.disk = Some(token.text);
        Ok(())
    }

    fn meta_disk(&mut self) -> Step<MetaDisk> {
        let path = self.string("a device")?;
        let token = self.next();
        match token.kind {
            Kind::Punctuation(b';') => Ok(internal(path)),
            Kind::Punctuation(b'[') if path != "internal" => {
                let index = self.integer("an index", u32::MAX)?;
                self.punctuation(b']')?;
                self.punctuation(b';')?;
                Ok(MetaDisk::Indexed(path, index))
            }
            _ => Err(self.unexpected(token, "';' or '['")),
        }
    }

    /// `device NAME [minor N];` or `device minor N;`
    fn device(&mut self, volume: &mut Volume, of: Option<&[String]>, line: u32) -> Step<()> {
        let mut token = self.next();
        if token.is_string() {
            let name = if token.text.starts_with("drbd") { format!("/dev/{}", token.text) } else { token.text };
            volume.device = Some(name);
            token = self.next();
        }
        let digits = volume.device.as_deref().and_then(|name| name.strip_prefix("/dev/drbd").map(str::to_owned));
        if token.is("minor") {
            let minor = self.integer("a minor", MINOR_MAX)?;
            self.punctuation(b';')?;
            volume.minor = Some(minor);
        } else if token.is_punctuation(b';') && volume.device.is_some() {
            let all_digits = |digits: &String| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let minor = digits.as_ref().filter(|digits| all_digits(digits)).and_then(|digits| digits.parse().ok());
            volume.minor = minor.filter(|minor| *minor <= MINOR_MAX);
            if volume.minor.is_none() {
                let name = volume.device.as_deref().unwrap_or_default();
                self.wrong(line, format!("device {} needs its minor: device NAME minor N", shown(name)));
            }
        } else {
            return Err(self.unexpected(token, "minor or ';'"));
        }
        if let Some(name) = volume.device.clone().filter(|_| self.concerns_us(of)) {
            self.judge_device(&name, digits.as_deref(), volume.minor, line);
        }
        self.claim_device(volume, of.unwrap_or_default(), line);
        Ok(())
    }

    /// drbdadm looks at the names of devices of this host, and of those that all hosts share.
    fn concerns_us(&self, of: Option<&[String]>) -> bool {
        of.is_none_or(|names| names.iter().any(|name| same_host(name, &self.node.name)))
    }

    fn judge_device(&mut self, name: &str, after: Option<&str>, minor: Option<u32>, line: u32) {
        let complaint = match after {
            None => Some("does not begin with /dev/drbd".to_owned()),
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (digits.parse().ok() != minor).then(|| "has another minor in its name".to_owned())
            }
            Some(rest) => (!rest.starts_with('_')).then(|| "is neither /dev/drbdMINOR nor /dev/drbd_NAME".to_owned()),
        };
        if let Some(complaint) = complaint {
            self.wrong(line, format!("device {} {complaint}", shown(name)));
        }
    }

    /// A device belongs to one volume of a host.
    pub(crate) fn claim_device(&mut self, volume: &Volume, hosts: &[String], line: u32) {
        let place = self.place(line);
        for (what, key) in devices(volume, hosts) {
            claim(&mut self.claims, &mut self.mistakes, &what, key, &place);
        }
    }

    /// Puts a volume in its place; of two with one number both stay, as drbdadm has it.
    pub(crate) fn insert(&mut self, volumes: &mut Vec<Volume>, volume: Volume, line: u32) -> Step<()> {
        if volumes.len() >= VOLUMES_MAX {
            self.wrong(line, format!("there are more than {VOLUMES_MAX} volumes"));
            return Ok(());
        }
        let at = volumes.partition_point(|other| other.number <= volume.number);
        volumes.insert(at, volume);
        Ok(())
    }
}

/// What a volume's device is called where it may be one volume's only: how to tell it, and how to know it.
pub(crate) fn devices(volume: &Volume, hosts: &[String]) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for host in hosts {
        if let Some(minor) = volume.minor {
            keys.push((format!("Minor {minor} of host {}", shown(host)), format!("minor:{host}:{minor}")));
        }
        if let Some(device) = &volume.device {
            keys.push((format!("Device {} of host {}", shown(device), shown(host)), format!("device:{host}:{device}")));
        }
    }
    keys
}

/// Two names of hosts are the same when they are equal, or when one of them has no domain and it equals the other's first part.
pub(crate) fn same_host(one: &str, other: &str) -> bool {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    match one.contains('.') && other.contains('.') {
        true => one.eq_ignore_ascii_case(other),
        false => first(one) == first(other),
    }
}

fn internal(path: String) -> MetaDisk {
    match path.as_str() {
        "internal" => MetaDisk::Internal,
        _ => MetaDisk::Flexible(path),
    }
}
