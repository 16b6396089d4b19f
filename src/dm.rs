//! Device-mapper by the kernel's ioctls: create, load, suspend, resume, status, remove.
//!
//! The layer over a volume ([`crate::layer`]) needs a handful of commands in the blackout of a migration and must work
//! where no udev runs, so this neither links libdevmapper nor waits for udev. Where udev does run, it is told by the
//! event's cookie to leave the device's contents alone: nobody may probe a device that a domain uses or that is suspended.
//! Numbers: linux/dm-ioctl.h, interface 4.

mod ioctl;
mod number;

use std::fs::File;
use std::io;

use nix::errno::Errno;

use self::ioctl::{Command, Message};
pub use self::number::{DeviceNumber, NotADeviceNumber};

/// Where the kernel listens.
const CONTROL: &str = "/dev/mapper/control";

/// What udev is asked for with every event: make the device's links, and neither scan it nor let others do so
/// (libdevmapper.h: DM_UDEV_DISABLE_SUBSYSTEM_RULES 0x2, _DISK_RULES 0x4, _OTHER_RULES 0x8, DM_UDEV_PRIMARY_SOURCE 0x40;
/// the flags are the upper half of the cookie, and a lower half of zero means that nobody waits).
const UDEV_COOKIE: u32 = (0x2 | 0x4 | 0x8 | 0x40) << 16;

/// The longest name of a device, in bytes.
pub const NAME_LEN_MAX: usize = ioctl::NAME_LEN_MAX;

/// The kernel's device-mapper.
#[derive(Debug)]
pub struct DeviceMapper {
    control: File,
}

/// What a mapped device is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number; its node is `/dev/dm-MINOR`.
    pub device: DeviceNumber,
    /// How often it is open.
    pub open_count: u32,
    /// Whether requests are held back.
    pub suspended: bool,
    /// Whether it has a live table.
    pub live_table: bool,
    /// Whether a table waits for the next resume.
    pub inactive_table: bool,
    /// Whether it disappears when its last user closes it.
    pub removed_on_close: bool,
}

/// A table of one target, which is all that we lay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The device's size, in sectors of 512 bytes.
    pub sectors: u64,
    /// Where requests go.
    pub target: Target,
}

/// Where a table sends the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this device, from its first sector on.
    Linear(DeviceNumber),
    /// Nowhere: every request fails.
    Error,
    /// Something that we do not lay; kind and parameters as the kernel has them.
    Other(String),
}

/// A refusal of device-mapper.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control node cannot be opened.
    #[error("Device-mapper is not there ({CONTROL}); modprobe dm_mod")]
    NotLoaded(#[source] io::Error),
    /// A name that device-mapper cannot hold.
    #[error("Device-mapper name {name} is longer than {NAME_LEN_MAX} bytes")]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// A command failed.
    #[error("Device-mapper {command} of {name} failed")]
    Command {
        /// The command.
        command: &'static str,
        /// The device.
        name: String,
        /// Why.
        #[source]
        errno: Errno,
    },
}

impl Error {
    /// The errno of a refused command.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Command { errno, .. } => Some(*errno),
            Self::NotLoaded(_) | Self::NameTooLong { .. } => None,
        }
    }
}

impl DeviceMapper {
    /// Opens the kernel's device-mapper.
    ///
    /// # Errors
    /// [`Error::NotLoaded`].
    pub fn open() -> Result<Self, Error> {
        let control = File::options().read(true).write(true).open(CONTROL);
        Ok(Self { control: control.map_err(Error::NotLoaded)? })
    }

    /// Makes a device without a table; it is ready after [`Self::load`] and [`Self::resume`].
    ///
    /// # Errors
    /// `EBUSY` when the name or the uuid is taken.
    pub fn create(&self, name: &str, uuid: &str) -> Result<Info, Error> {
        let message = about(name)?.with_uuid(uuid);
        self.send(Command::Create, "create", name, message).map(|reply| Info::of(&reply))
    }

    /// Puts a table in waiting; the next resume makes it the live one.
    ///
    /// # Errors
    /// What opening the device below gives: `EBUSY` when somebody has claimed it, `EROFS` or `EACCES` for a DRBD
    /// device that is not Primary.
    pub fn load(&self, name: &str, table: &Table) -> Result<(), Error> {
        let (kind, parameters) = match &table.target {
            Target::Linear(device) => ("linear", format!("{device} 0")),
            Target::Error | Target::Other(_) => ("error", String::new()),
        };
        let message = about(name)?.with_target(table.sectors, kind, &parameters);
        self.send(Command::Load, "load", name, message).map(drop)
    }

    /// Holds back new requests and waits until those under way have ended. Nothing happens when it is suspended already.
    /// Waits as long as the device below takes: see that it has nothing under way before.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn suspend(&self, name: &str) -> Result<(), Error> {
        // No file system of this host lives on the device: there is nothing to freeze and nothing to flush.
        let flags = ioctl::DM_SUSPEND_FLAG | ioctl::DM_SKIP_LOCKFS_FLAG | ioctl::DM_NOFLUSH_FLAG;
        self.send(Command::Suspend, "suspend", name, about(name)?.with_flags(flags)).map(drop)
    }

    /// Makes a waiting table the live one, lets go of the device under the old one, and lets requests flow.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn resume(&self, name: &str) -> Result<(), Error> {
        // The same command as suspend, without its flag; a table is swapped under noflush and skip_lockfs as above.
        let flags = ioctl::DM_SKIP_LOCKFS_FLAG | ioctl::DM_NOFLUSH_FLAG;
        let message = about(name)?.with_flags(flags).with_cookie(UDEV_COOKIE);
        self.send(Command::Suspend, "resume", name, message).map(drop)
    }

    /// What a device is doing, or `None` when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn info(&self, name: &str) -> Result<Option<Info>, Error> {
        let reply = self.send(Command::Status, "status", name, about(name)?);
        present(reply.map(|reply| Info::of(&reply)))
    }

    /// A device's live table, or `None` when it has none or there is no such device.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn table(&self, name: &str) -> Result<Option<Table>, Error> {
        let flags = ioctl::DM_STATUS_TABLE_FLAG;
        let reply = self.send(Command::TableStatus, "table", name, about(name)?.with_flags(flags));
        Ok(present(reply)?.and_then(|reply| Table::of(&reply)))
    }

    /// Gives a device another name.
    ///
    /// # Errors
    /// `EBUSY` when the name is taken.
    pub fn rename(&self, name: &str, new_name: &str) -> Result<(), Error> {
        check_length(new_name)?;
        let message = about(name)?.with_new_name(new_name).with_cookie(UDEV_COOKIE);
        self.send(Command::Rename, "rename", name, message).map(drop)
    }

    /// Removes a device. Nothing happens when it is gone already.
    ///
    /// # Errors
    /// `EBUSY` while somebody has it open.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let message = about(name)?.with_cookie(UDEV_COOKIE);
        present(self.send(Command::Remove, "remove", name, message)).map(drop)
    }

    /// Removes a device now, or when its last user closes it. Nothing happens when it is gone already.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn remove_when_closed(&self, name: &str) -> Result<(), Error> {
        let message = about(name)?.with_flags(ioctl::DM_DEFERRED_REMOVE).with_cookie(UDEV_COOKIE);
        present(self.send(Command::Remove, "remove", name, message)).map(drop)
    }

    fn send(&self, command: Command, verb: &'static str, name: &str, mut message: Message) -> Result<Message, Error> {
        match message.send(&self.control, command) {
            Ok(()) => Ok(message),
            Err(errno) => Err(Error::Command { command: verb, name: name.to_owned(), errno }),
        }
    }
}

fn about(name: &str) -> Result<Message, Error> {
    check_length(name)?;
    Ok(Message::about(name))
}

fn check_length(name: &str) -> Result<(), Error> {
    if name.len() > NAME_LEN_MAX {
        return Err(Error::NameTooLong { name: name.to_owned() });
    }
    Ok(())
}

/// "No such device" as an absence (drivers/md/dm-ioctl.c: a name that is not found gives ENXIO).
fn present<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno() == Some(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Info {
    fn of(reply: &Message) -> Info {
        let flag = |bit| reply.flags() & bit != 0;
        Info {
            device: DeviceNumber::from_kernel(reply.device()),
            open_count: reply.open_count(),
            suspended: flag(ioctl::DM_SUSPEND_FLAG),
            live_table: flag(ioctl::DM_ACTIVE_PRESENT_FLAG),
            inactive_table: flag(ioctl::DM_INACTIVE_PRESENT_FLAG),
            removed_on_close: flag(ioctl::DM_DEFERRED_REMOVE),
        }
    }
}

impl Table {
    fn of(reply: &Message) -> Option<Table> {
        if reply.flags() & ioctl::DM_BUFFER_FULL_FLAG != 0 {
            return None;
        }
        let (sectors, kind, parameters) = reply.target()?;
        Some(Table { sectors, target: Target::of(&kind, &parameters) })
    }
}

impl Target {
    fn of(kind: &str, parameters: &str) -> Target {
        let below = parameters.strip_suffix(" 0").and_then(|device| device.parse().ok());
        match (kind, below) {
            ("error", _) => Target::Error,
            ("linear", Some(device)) => Target::Linear(device),
            _ => Target::Other(format!("{kind} {parameters}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let below = DeviceNumber { major: 147, minor: 0 };
        assert_eq!(Target::of("linear", "147:0 0"), Target::Linear(below));
        assert_eq!(Target::of("error", ""), Target::Error);
        assert!(matches!(Target::of("linear", "147:0 8"), Target::Other(_)));
    }

    #[test]
    fn long_names_are_refused_before_the_kernel_sees_them() {
        assert!(matches!(about(&"n".repeat(128)), Err(Error::NameTooLong { .. })));
    }
}
