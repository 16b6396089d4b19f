//! The ioctl of `/dev/mapper/control`: one message, one call. The only unsafe code outside `xen/`.
//!
//! Numbers and offsets are those of linux/dm-ioctl.h (interface 4; `struct dm_ioctl`, 312 bytes). The message is a
//! plain byte buffer: the kernel copies it in and out and asks for no alignment.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// Length of `struct dm_ioctl`; a command's data stand behind it.
pub(super) const HEADER_LEN: usize = 312;
/// Length of `struct dm_target_spec`; the target's parameters stand behind it.
pub(super) const SPEC_LEN: usize = 40;
/// The longest name of a device, `DM_NAME_LEN` without its final zero.
pub(super) const NAME_LEN_MAX: usize = 127;
/// The longest uuid of a device, `DM_UUID_LEN` without its final zero.
pub(super) const UUID_LEN_MAX: usize = 128;

/// Room for a reply's data: one target with its parameters, with a wide margin.
const REPLY_LEN: usize = 4096;
/// The interface that we speak; any kernel since 2.6 with major 4 answers it.
const VERSION: [u32; 3] = [4, 0, 0];
const DM_IOCTL: u8 = 0xfd;

// Flags, dm-ioctl.h.
pub(super) const DM_SUSPEND_FLAG: u32 = 1 << 1;
pub(super) const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
pub(super) const DM_ACTIVE_PRESENT_FLAG: u32 = 1 << 5;
pub(super) const DM_INACTIVE_PRESENT_FLAG: u32 = 1 << 6;
pub(super) const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
pub(super) const DM_SKIP_LOCKFS_FLAG: u32 = 1 << 10;
pub(super) const DM_NOFLUSH_FLAG: u32 = 1 << 11;
pub(super) const DM_DEFERRED_REMOVE: u32 = 1 << 17;

/// A command's number, dm-ioctl.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    Create = 3,
    Remove = 4,
    Rename = 5,
    Suspend = 6,
    Status = 7,
    Load = 9,
    TableStatus = 12,
}

/// One `struct dm_ioctl` with its data, on its way out or back.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message about the device `name`, without data.
    pub(super) fn about(name: &str) -> Message {
        let mut message = Message { bytes: vec![0; HEADER_LEN + REPLY_LEN] };
        for (i, number) in VERSION.into_iter().enumerate() {
            message.put_u32(i * 4, number);
        }
        message.put_u32(12, u32::try_from(HEADER_LEN + REPLY_LEN).unwrap_or(u32::MAX));
        message.put_u32(16, u32::try_from(HEADER_LEN).unwrap_or(u32::MAX));
        message.put_text(48, name, NAME_LEN_MAX);
        message
    }

    pub(super) fn with_uuid(mut self, uuid: &str) -> Message {
        self.put_text(176, uuid, UUID_LEN_MAX);
        self
    }

    pub(super) fn with_flags(mut self, flags: u32) -> Message {
        self.put_u32(28, flags);
        self
    }

    /// What the kernel passes to udev as `DM_COOKIE` with the event that this command causes.
    pub(super) fn with_cookie(mut self, cookie: u32) -> Message {
        self.put_u32(32, cookie);
        self
    }

    /// The new name of [`Command::Rename`], a zero-ended string in the data.
    pub(super) fn with_new_name(mut self, name: &str) -> Message {
        self.put_text(HEADER_LEN, name, NAME_LEN_MAX);
        self
    }

    /// A table of one target, from sector 0.
    pub(super) fn with_target(mut self, sectors: u64, kind: &str, parameters: &str) -> Message {
        self.put_u32(20, 1);
        self.put_u64(HEADER_LEN + 8, sectors);
        self.put_text(HEADER_LEN + 24, kind, 15);
        self.put_text(HEADER_LEN + SPEC_LEN, parameters, REPLY_LEN - SPEC_LEN - 1);
        self
    }

    pub(super) fn flags(&self) -> u32 {
        self.u32(28)
    }

    pub(super) fn open_count(&self) -> u32 {
        self.u32(24)
    }

    /// The device's number in the kernel's `huge_encode_dev` form (linux/kdev_t.h).
    pub(super) fn device(&self) -> u64 {
        self.u64(40)
    }

    /// The first target of a table's status: sectors, kind, parameters; `None` when there is no table.
    pub(super) fn target(&self) -> Option<(u64, String, String)> {
        let data = usize::try_from(self.u32(16)).ok()?;
        if self.u32(20) == 0 || data < HEADER_LEN || data + SPEC_LEN > self.bytes.len() {
            return None;
        }
        Some((self.u64(data + 8), self.text(data + 24, 16), self.text(data + SPEC_LEN, REPLY_LEN)))
    }

    /// Sends the message and takes the kernel's answer in its place. A signal does not end it.
    pub(super) fn send(&mut self, control: &File, command: Command) -> Result<(), Errno> {
        let request = nix::request_code_readwrite!(DM_IOCTL, command as u8, HEADER_LEN);
        loop {
            match self.ioctl(control, request) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    #[expect(unsafe_code, reason = "no crate of the workspace wraps this ioctl; see the module's comment")]
    fn ioctl(&mut self, control: &File, request: nix::sys::ioctl::ioctl_num_type) -> Result<(), Errno> {
        // SAFETY: `request` takes a pointer to a struct dm_ioctl (dm-ioctl.h). The buffer lives through the call and is
        // as long as its `data_size` says, which is all that the kernel reads or writes (drivers/md/dm-ioctl.c, copy_params).
        let rc = unsafe { libc::ioctl(control.as_raw_fd(), request, self.bytes.as_mut_ptr()) };
        Errno::result(rc).map(drop)
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    /// Callers bound the length before; what is too long would be cut, never written past its field.
    fn put_text(&mut self, at: usize, text: &str, len_max: usize) {
        let len = text.len().min(len_max);
        self.bytes[at..at + len].copy_from_slice(&text.as_bytes()[..len]);
    }

    fn u32(&self, at: usize) -> u32 {
        let mut value = [0; 4];
        value.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_ne_bytes(value)
    }

    fn u64(&self, at: usize) -> u64 {
        let mut value = [0; 8];
        value.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_ne_bytes(value)
    }

    fn text(&self, at: usize, len_max: usize) -> String {
        let end = (at + len_max).min(self.bytes.len());
        let field = &self.bytes[at..end];
        let len = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..len]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stands_where_the_kernel_reads_it() {
        let message = Message::about("bascule-r0-0").with_target(2048, "linear", "147:0 0");
        assert_eq!(&message.bytes[48..61], b"bascule-r0-0\0");
        assert_eq!(message.target(), Some((2048, "linear".into(), "147:0 0".into())));
        assert_eq!(usize::try_from(message.u32(12)), Ok(message.bytes.len()));
    }

    #[test]
    fn overlong_text_stays_in_its_field() {
        let message = Message::about(&"n".repeat(400)).with_uuid(&"u".repeat(400));
        assert_eq!(message.text(48, 128).len(), NAME_LEN_MAX);
        assert_eq!(message.text(176, 129).len(), UUID_LEN_MAX);
        assert_eq!(message.bytes[304], 0);
    }

    #[test]
    fn the_codes_are_the_header_s() {
        assert_eq!(nix::request_code_readwrite!(DM_IOCTL, Command::Create as u8, HEADER_LEN), 0xc138_fd03);
    }

    #[test]
    fn a_reply_that_points_outside_is_no_table() {
        let mut message = Message::about("x").with_target(1, "error", "");
        message.put_u32(16, u32::MAX);
        assert_eq!(message.target(), None);
    }
}
