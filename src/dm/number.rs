//! A block device's number, in the forms that the kernel, sysfs and xenstore give it.

use std::fmt;
use std::fs;
use std::str::FromStr;

use crate::ids::Minor;

/// A block device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Which driver, 0 to 4095.
    pub major: u32,
    /// Which of its devices, 0 to 1048575.
    pub minor: u32,
}

impl DeviceNumber {
    /// DRBD's block devices (linux/major.h: registered as 147, "drbd").
    pub const DRBD_MAJOR: u32 = 147;
    /// Loop devices (linux/major.h, `LOOP_MAJOR`).
    const LOOP_MAJOR: u32 = 7;

    /// Whether it is a loop device. A file behind one is written through the page cache: Xen's script for files asks for nothing else.
    #[must_use]
    pub fn is_loop(self) -> bool {
        self.major == Self::LOOP_MAJOR
    }

    /// The block device of a DRBD minor.
    #[must_use]
    pub fn drbd(minor: Minor) -> Self {
        Self { major: Self::DRBD_MAJOR, minor: minor.0 }
    }

    /// As blkback reads it from `physical-device`: hexadecimal, `MAJOR:minor`.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:x}:{:x}", self.major, self.minor)
    }

    /// Reads the form of [`Self::to_hex`].
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        let number = |text| u32::from_str_radix(text, 16).ok();
        Some(Self { major: number(major)?, minor: number(minor)? })
    }

    /// Reads and writes that the device has been given and has not ended (sysfs, `inflight`); 0 when it is gone.
    #[must_use]
    pub fn in_flight(self) -> u64 {
        let counts = fs::read_to_string(format!("/sys/dev/block/{self}/inflight")).unwrap_or_default();
        counts.split_whitespace().filter_map(|count| count.parse::<u64>().ok()).sum()
    }

    /// linux/kdev_t.h, `new_decode_dev`: the minor's low byte, twelve bits of major, the rest of the minor.
    pub(super) fn from_kernel(device: u64) -> Self {
        let bits = |shift: u32, mask: u64| u32::try_from((device >> shift) & mask).unwrap_or(0);
        Self { major: bits(8, 0xfff), minor: bits(0, 0xff) | (bits(20, 0xfff) << 8) }
    }
}

/// Decimal, as the kernel and sysfs write it: `147:0`.
impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Text that is not `MAJOR:minor`.
#[derive(Debug, thiserror::Error)]
#[error("Not a device number")]
pub struct NotADeviceNumber;

impl FromStr for DeviceNumber {
    type Err = NotADeviceNumber;

    fn from_str(text: &str) -> Result<Self, NotADeviceNumber> {
        let (major, minor) = text.trim().split_once(':').ok_or(NotADeviceNumber)?;
        let number = |text: &str| text.parse().map_err(|_| NotADeviceNumber);
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_in_every_form() {
        let drbd = DeviceNumber::drbd(Minor(1000));
        assert_eq!(drbd.to_hex(), "93:3e8");
        assert_eq!(drbd.to_string(), "147:1000");
        assert_eq!(DeviceNumber::from_hex("93:3e8"), Some(drbd));
        assert_eq!("147:1000\n".parse::<DeviceNumber>().ok(), Some(drbd));
        assert_eq!(DeviceNumber::from_kernel(0xe8 | (147 << 8) | (3 << 20)), drbd);
        assert_eq!(DeviceNumber::from_hex("93"), None);
    }
}
