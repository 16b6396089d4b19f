//! The kernel of an unpacked linux-image package, and how to get it out of its compressed image.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, bail, ensure};

/// Length of a sector in the boot protocol's counts.
const SECTOR_LEN: usize = 512;
/// The boot protocol from which on the header tells where the payload is (Documentation/arch/x86/boot.rst).
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// The one boot/vmlinuz-* of the package.
///
/// # Errors
/// None or several of them.
pub fn find_vmlinuz(kernel_tree: &Path) -> anyhow::Result<PathBuf> {
    let boot = kernel_tree.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("{} is not readable", boot.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
            found.push(entry.path());
        }
    }
    ensure!(found.len() == 1, "{} holds {} kernels, not one", boot.display(), found.len());
    Ok(found.remove(0))
}

/// The kernel as ELF, out of a bzImage.
///
/// # Errors
/// No bzImage, or a payload that cannot be decompressed.
pub fn extract_vmlinux(vmlinuz: &Path) -> anyhow::Result<Vec<u8>> {
    let image = fs::read(vmlinuz).with_context(|| format!("{} is not readable", vmlinuz.display()))?;
    let vmlinux = decompress(payload(&image)?)?;
    ensure!(vmlinux.starts_with(b"\x7fELF"), "{} holds no ELF kernel", vmlinuz.display());
    Ok(vmlinux)
}

/// The compressed kernel inside the image, by its setup header.
fn payload(image: &[u8]) -> anyhow::Result<&[u8]> {
    let header = image.get(..0x250).context("This is too short for a kernel")?;
    ensure!(&header[0x202..0x206] == b"HdrS", "This is no bzImage");
    let protocol = u16::from_le_bytes([header[0x206], header[0x207]]);
    ensure!(protocol >= PROTOCOL_WITH_PAYLOAD, "Boot protocol {protocol:#x} does not tell where the payload is");
    let setup_sectors = match header[0x1f1] {
        0 => 4,
        count => usize::from(count),
    };
    let start = (setup_sectors + 1) * SECTOR_LEN + word(header, 0x248)?;
    let end = start + word(header, 0x24c)?;
    image.get(start..end).context("The payload lies outside the image")
}

fn word(header: &[u8], offset: usize) -> anyhow::Result<usize> {
    let bytes: [u8; 4] = header[offset..offset + 4].try_into()?;
    Ok(usize::try_from(u32::from_le_bytes(bytes))?)
}

/// Decompresses what the first bytes say it is; data of no known compression comes back as it is. What follows the
/// stream (the kernel's build appends the length) is ignored.
///
/// # Errors
/// The decompressor is not installed or refuses the data.
pub fn decompress(data: &[u8]) -> anyhow::Result<Vec<u8>> {
    match data {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => filter("xz", &["-dc", "--single-stream"], data),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => filter("zstd", &["-dcq"], data),
        [0x1f, 0x8b, ..] => filter("gzip", &["-dcq"], data),
        _ => Ok(data.to_vec()),
    }
}

/// Runs a decompressor over the data. Complaints about what follows the stream are no failure as long as something came out.
fn filter(program: &str, arguments: &[&str], data: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} cannot be run"))?;
    let mut stdin = child.stdin.take().context("A piped child has a stdin")?;
    let output = thread::scope(|scope| {
        // A decompressor may stop reading at the end of the stream; its own report tells whether that was right.
        scope.spawn(move || stdin.write_all(data).ok());
        child.wait_with_output()
    })?;
    if output.stdout.is_empty() {
        bail!("{program} got nothing out of the data: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR_LEN + 0x40];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&0x40_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        let image = bzimage(b"kernel");
        assert_eq!(payload(&image).unwrap(), b"kernel");
        assert!(payload(&image[..image.len() - 1]).is_err());
        assert!(payload(&[0; 4096]).is_err());
    }

    #[test]
    fn a_compressed_stream_may_be_followed_by_its_length() {
        let mut packed = filter("gzip", &["-c"], b"kernel").unwrap();
        packed.extend_from_slice(&6_u32.to_le_bytes());
        assert_eq!(decompress(&packed).unwrap(), b"kernel");
        assert_eq!(decompress(b"plain").unwrap(), b"plain");
    }
}
