//! libxlutil's parser of xl.cfg files, and of the disk, rate and PCI specifications in them. Works without Xen.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use xen_sys as sys;

use super::disposed::Disposed;
use super::memory::Malloced;

/// libxlutil refused something.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub struct Error {
    /// What it reported, as one line, or the name of the errno; of a look-up, what is wrong with the value, as the rest of a sentence.
    said: String,
}

type Result<T> = std::result::Result<T, Error>;

/// For libxlutil not to report what is said here in other words (libxlutil.h, `dont_warn`).
const QUIET: c_int = 1;
const IS_LIST: &str = "is a list, and one value is needed";
const IS_NO_LIST: &str = "is one value, and a list is needed";

/// A parsed file: assignments of strings and lists to keys.
#[derive(Debug)]
pub struct Config {
    raw: NonNull<sys::XLU_Config>,
    /// Dropped after the parser that writes to it.
    report: Report,
}

impl Config {
    /// Parses the text of a configuration; `name` stands in what is reported.
    ///
    /// # Errors
    /// Where the text breaks the grammar, with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let config = Self::new(name)?;
        let length = c_int::try_from(text.len()).map_err(|_| Error { said: "Text is too long".into() })?;
        // SAFETY: a live parser, and `length` readable bytes (libxlutil.h, xlu_cfg_readdata).
        let errno = unsafe { sys::xlu_cfg_readdata(config.raw.as_ptr(), text.as_ptr().cast(), length) };
        config.check(errno)?;
        Ok(config)
    }

    fn new(name: &str) -> Result<Self> {
        let report = Report::open()?;
        let name = c_string(name)?;
        // SAFETY: the name is copied, the report outlives the parser (libxlutil.h, xlu_cfg_init).
        let raw = unsafe { sys::xlu_cfg_init(report.file.as_ptr(), name.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error { said: "Out of memory".into() })?;
        Ok(Self { raw, report })
    }

    /// The string or number that a key has, `None` when the key is not there.
    ///
    /// # Errors
    /// When it is a list.
    pub fn string(&self, key: &str) -> Result<Option<String>> {
        let (key, mut value) = (c_string(key)?, ptr::null());
        // SAFETY: a parsed configuration, a NUL-terminated key, `value` ours to write (libxlutil.h).
        let errno = unsafe { sys::xlu_cfg_get_string(self.raw.as_ptr(), key.as_ptr(), &raw mut value, QUIET) };
        // SAFETY: on success a string that belongs to the configuration.
        found(errno, IS_LIST, || unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }

    /// The number that a key has, in any base that C's strtol knows.
    ///
    /// # Errors
    /// When it is a list or no number.
    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        let (c_key, mut value): (_, c_long) = (c_string(key)?, 0);
        // SAFETY: as in string.
        let errno = unsafe { sys::xlu_cfg_get_long(self.raw.as_ptr(), c_key.as_ptr(), &raw mut value, QUIET) };
        let refusal = if self.string(key).is_ok() { "is no number" } else { IS_LIST };
        found(errno, refusal, || value)
    }

    /// The strings of the list that a key has.
    ///
    /// # Errors
    /// When it is no list, or a list of anything but strings.
    pub fn list(&self, key: &str) -> Result<Option<Vec<String>>> {
        let (c_key, mut list, mut count) = (c_string(key)?, ptr::null_mut(), 0);
        let (list_r, count_r) = (&raw mut list, &raw mut count);
        // SAFETY: as in string; the list belongs to the configuration (libxlutil.h, xlu_cfg_get_list).
        let errno = unsafe { sys::xlu_cfg_get_list(self.raw.as_ptr(), c_key.as_ptr(), list_r, count_r, QUIET) };
        found(errno, IS_NO_LIST, || (0..count).map(|entry| item(list, entry)).collect::<Option<Vec<_>>>())?
            .map(|items| items.ok_or_else(|| Error { said: "is a list of more than strings".to_owned() }))
            .transpose()
    }

    /// The lists of strings in the list that a key has.
    ///
    /// # Errors
    /// When it is no list, or a list of anything but lists of strings.
    pub fn lists(&self, key: &str) -> Result<Option<Vec<Vec<String>>>> {
        let (c_key, mut list, mut count) = (c_string(key)?, ptr::null_mut(), 0);
        let (list_r, count_r) = (&raw mut list, &raw mut count);
        // SAFETY: as in list.
        let errno = unsafe { sys::xlu_cfg_get_list(self.raw.as_ptr(), c_key.as_ptr(), list_r, count_r, QUIET) };
        let lists =
            found(errno, IS_NO_LIST, || (0..count).map(|entry| self.inner(list, entry)).collect::<Option<Vec<_>>>())?;
        lists.map(|lists| lists.ok_or_else(|| Error { said: "is no list of lists of strings".to_owned() })).transpose()
    }

    /// The strings of a list inside a list, `None` when the entry is something else.
    fn inner(&self, outer: *const sys::XLU_ConfigList, entry: c_int) -> Option<Vec<String>> {
        // SAFETY: a list of this configuration; NULL where there is no such entry (libxlutil.h).
        let value = NonNull::new(unsafe { sys::xlu_cfg_get_listitem2(outer, entry) })?.as_ptr();
        let mut list = ptr::null_mut();
        // SAFETY: a value of this configuration, `list` ours to write; no warning is wanted (libxlutil.h).
        let errno = unsafe { sys::xlu_cfg_value_get_list(self.raw.as_ptr(), value, &raw mut list, 1) };
        let items = |list| (0..).take_while(|entry| has(list, *entry)).map(|entry| item(list, entry)).collect();
        if errno == 0 { items(list) } else { None }
    }

    /// One disk specification in any form that xl takes, as libxl's JSON.
    ///
    /// # Errors
    /// What is wrong with it, in libxlutil's words.
    pub fn disk(spec: &str) -> Result<serde_json::Value> {
        let (config, spec) = (Self::new("disk")?, c_string(spec)?);
        let mut disk = Disposed::<sys::libxl_device_disk>::new();
        let (specs, target) = ([spec.as_ptr()], disk.as_mut_ptr());
        // SAFETY: one NUL-terminated specification, an initialised disk (libxlutil.h, xlu_disk_parse).
        config.check(unsafe { sys::xlu_disk_parse(config.raw.as_ptr(), 1, specs.as_ptr(), target) })?;
        // SAFETY: a valid disk; the context is only used to report lack of memory (_libxl_types.h).
        json(unsafe { sys::libxl_device_disk_to_json(ptr::null_mut(), target) })
    }

    /// A network rate such as `10Mb/s@50ms` as bytes per interval and the interval in microseconds.
    ///
    /// # Errors
    /// What is wrong with it, in libxlutil's words.
    pub fn rate(spec: &str) -> Result<(u64, u32)> {
        let (config, spec) = (Self::new("vif")?, c_string(spec)?);
        let mut nic = Disposed::<sys::libxl_device_nic>::new();
        let target = nic.as_mut_ptr();
        // SAFETY: a NUL-terminated rate, an initialised nic (libxlutil.h, xlu_vif_parse_rate).
        config.check(unsafe { sys::xlu_vif_parse_rate(config.raw.as_ptr(), spec.as_ptr(), target) })?;
        Ok((nic.rate_bytes_per_interval, nic.rate_interval_usecs))
    }

    /// One PCI device as xl takes it, `01:00.0@7,permissive=1` or `bdf=…`, as libxl's JSON. What it does not say of itself is
    /// as in `unsaid`.
    ///
    /// # Errors
    /// What is wrong with it, in libxlutil's words where it has any.
    #[cfg(xen_pci_spec_string)]
    pub fn pci(spec: &str, unsaid: PciOptions) -> Result<serde_json::Value> {
        let (config, c_spec) = (Self::new("pci")?, c_string(spec)?);
        let mut pci = Disposed::<sys::libxl_device_pci>::new();
        pci.msitranslate = unsaid.msitranslate;
        pci.power_mgmt = unsaid.power_mgmt;
        pci.permissive = unsaid.permissive;
        pci.seize = unsaid.seize;
        pci.rdm_policy = match unsaid.rdm_policy {
            RdmPolicy::Unsaid => sys::libxl_rdm_reserve_policy::LIBXL_RDM_RESERVE_POLICY_INVALID,
            RdmPolicy::Strict => sys::libxl_rdm_reserve_policy::LIBXL_RDM_RESERVE_POLICY_STRICT,
            RdmPolicy::Relaxed => sys::libxl_rdm_reserve_policy::LIBXL_RDM_RESERVE_POLICY_RELAXED,
        };
        let target = pci.as_mut_ptr();
        // SAFETY: a NUL-terminated specification, an initialised device (libxlutil.h, xlu_pci_parse_spec_string).
        let rc = unsafe { sys::xlu_pci_parse_spec_string(config.raw.as_ptr(), target, c_spec.as_ptr()) };
        if rc != 0 {
            let said = config.report.take();
            return Err(Error { said: if said.is_empty() { "is no PCI device".to_owned() } else { said } });
        }
        // SAFETY: as in disk.
        json(unsafe { sys::libxl_device_pci_to_json(ptr::null_mut(), target) })
    }

    /// The same for a libxlutil that cannot read them.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(xen_pci_spec_string))]
    pub fn pci(_spec: &str, _unsaid: PciOptions) -> Result<serde_json::Value> {
        Err(Error { said: "PCI devices are not understood with this release of Xen, before 4.15".to_owned() })
    }

    /// libxlutil's convention elsewhere: 0 or an errno, and the reason in the report.
    fn check(&self, errno: c_int) -> Result<()> {
        if errno == 0 {
            return Ok(());
        }
        let said = self.report.take();
        let said = if said.is_empty() { Errno::from_raw(errno).desc().to_owned() } else { said };
        Err(Error { said })
    }
}

/// What a file says of all PCI devices (xl.cfg, `pci_msitranslate` and the like).
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of libxl's")]
pub struct PciOptions {
    /// Translate MSI to INTx.
    pub msitranslate: bool,
    /// Let the domain program the power management.
    pub power_mgmt: bool,
    /// Let the domain write the whole configuration space.
    pub permissive: bool,
    /// Take the device from whoever has it.
    pub seize: bool,
    /// What becomes of a conflict about reserved memory.
    pub rdm_policy: RdmPolicy,
}

/// What becomes of a conflict about reserved memory (`libxl_rdm_reserve_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RdmPolicy {
    /// libxl decides.
    #[default]
    Unsaid,
    /// The domain is not made.
    Strict,
    /// A warning.
    Relaxed,
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: xlu_cfg_init made it, and it is freed once (libxlutil.h, xlu_cfg_destroy).
        unsafe { sys::xlu_cfg_destroy(self.raw.as_ptr()) }
    }
}

/// A C stream that writes to memory: where libxlutil says what it does not like.
#[derive(Debug)]
struct Report {
    file: NonNull<libc::FILE>,
    memory: NonNull<Memory>,
}

/// What open_memstream keeps up to date whenever the stream is flushed.
#[derive(Debug)]
struct Memory {
    text: *mut c_char,
    length: usize,
}

impl Report {
    fn open() -> Result<Self> {
        let memory = Box::into_raw(Box::new(Memory { text: ptr::null_mut(), length: 0 }));
        // SAFETY: a live Memory, of which only the address of a field is taken.
        let text = unsafe { &raw mut (*memory).text };
        // SAFETY: as above.
        let length = unsafe { &raw mut (*memory).length };
        // SAFETY: both addresses stay valid until the stream is closed in Drop (open_memstream(3)).
        let file = unsafe { libc::open_memstream(text, length) };
        match (NonNull::new(file), NonNull::new(memory)) {
            (Some(file), Some(memory)) => Ok(Self { file, memory }),
            _ => {
                // SAFETY: made above, and C has not taken its addresses.
                drop(unsafe { Box::from_raw(memory) });
                Err(Error { said: Errno::last().desc().to_owned() })
            }
        }
    }

    /// What has been written so far, on one line.
    fn take(&self) -> String {
        // SAFETY: an open stream; afterwards text and length are valid (open_memstream(3)).
        unsafe { libc::fflush(self.file.as_ptr()) };
        // SAFETY: C wrote it during the flush and writes nothing while we read.
        let text = unsafe { self.memory.as_ref() }.text;
        // SAFETY: a NUL-terminated string since the flush.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: opened by open, closed once, before its memory is freed (open_memstream(3)).
        unsafe { libc::fclose(self.file.as_ptr()) };
        // SAFETY: made by open; C no longer has its addresses.
        let memory = unsafe { Box::from_raw(self.memory.as_ptr()) };
        // SAFETY: after fclose the buffer is ours to free.
        unsafe { libc::free(memory.text.cast()) }
    }
}

/// libxlutil's convention for a look-up: 0, ESRCH when there is no such key, ERANGE when a number is too big for it, EINVAL when it
/// is something else, which `refusal` says.
fn found<T>(errno: c_int, refusal: &str, value: impl FnOnce() -> T) -> Result<Option<T>> {
    match errno {
        0 => Ok(Some(value())),
        libc::ESRCH => Ok(None),
        libc::ERANGE => Err(Error { said: "is no number of 64 bits".to_owned() }),
        _ => Err(Error { said: refusal.to_owned() }),
    }
}

fn has(list: *const sys::XLU_ConfigList, entry: c_int) -> bool {
    // SAFETY: a list of a live configuration; NULL past its end (libxlutil.h).
    !unsafe { sys::xlu_cfg_get_listitem2(list, entry) }.is_null()
}

fn item(list: *const sys::XLU_ConfigList, entry: c_int) -> Option<String> {
    // SAFETY: a list of a live configuration; an entry that is no string gives NULL (libxlutil.h).
    let text = unsafe { sys::xlu_cfg_get_listitem(list, entry) };
    let text = NonNull::new(text.cast_mut())?;
    // SAFETY: a NUL-terminated string of the configuration.
    Some(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
}

fn json(text: *mut c_char) -> Result<serde_json::Value> {
    let text = NonNull::new(text).ok_or_else(|| Error { said: "Out of memory".into() })?;
    serde_json::from_str(&Malloced::from(text).string()).map_err(|error| Error { said: error.to_string() })
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error { said: format!("{text:?} contains a NUL byte") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_types() {
        let config = Config::parse("t", "a = 'x'\nb = 0x10 # c = 1\nl = [ \"p\", 'q',\n ]\n").expect("parse");
        assert_eq!(config.string("a").expect("string").as_deref(), Some("x"));
        assert_eq!(config.number("b").expect("number"), Some(16));
        assert_eq!(config.string("c").expect("missing"), None);
        assert_eq!(config.list("l").expect("list"), Some(vec!["p".to_owned(), "q".to_owned()]));
        assert_eq!(config.list("a").expect_err("no list").to_string(), IS_NO_LIST);
        assert_eq!(config.number("l").expect_err("a list").to_string(), IS_LIST);
        assert_eq!(config.number("a").expect_err("no number").to_string(), "is no number");
        assert!(Config::parse("t", "n = [ ['x'] ]").expect("parse").list("n").is_err());
    }

    #[test]
    fn lists_have_lists_in_them() {
        let config =
            Config::parse("t", "n = [ ['x', 'y'], [], [ 1 ] ]\nm = [ ['x'], 'y' ]\no = [ [ ['z'] ] ]").expect("parse");
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected = vec![strings(&["x", "y"]), strings(&[]), strings(&["1"])];
        assert_eq!(config.lists("n").expect("lists"), Some(expected));
        assert_eq!(config.lists("p").expect("missing"), None);
        assert!(config.lists("m").is_err() && config.lists("o").is_err());
    }

    #[test]
    fn pci_devices_are_taken_with_what_is_said_of_all() {
        let unsaid = PciOptions { seize: true, ..PciOptions::default() };
        let device = Config::pci("01:1f.7@2,permissive=1", unsaid).expect("device");
        assert_eq!(
            device,
            serde_json::json!({"bus": 1, "dev": 31, "func": 7, "vdevfn": 16, "vfunc_mask": 1, "permissive": true, "seize": true})
        );
        assert_eq!(Config::pci("gpu", unsaid).expect_err("no device").to_string(), "is no PCI device");
        assert!(Config::pci("01:00.0,permisive=1", unsaid).expect_err("misspelt").to_string().contains("permisive"));
    }

    #[test]
    fn a_syntax_error_names_the_line() {
        let error = Config::parse("guest.cfg", "a = 1\nb = = 2\n").expect_err("syntax");
        assert!(error.to_string().contains("guest.cfg:2"), "{error}");
    }

    #[test]
    fn disks_are_taken_in_all_forms() {
        for spec in ["drbd:r0/1,xvda,w", "format=raw,vdev=xvda,access=rw,script=block-drbd,target=r0/1"] {
            let disk = Config::disk(spec).expect(spec);
            assert_eq!((disk["pdev_path"].as_str(), disk["script"].as_str()), (Some("r0/1"), Some("block-drbd")));
        }
        assert!(Config::disk("vdev=xvda,acces=rw").expect_err("misspelt").to_string().contains("acces"));
    }

    #[test]
    fn rates_are_taken_as_xl_does() {
        assert_eq!(Config::rate("10Mb/s").expect("rate"), (62_500, 50_000));
        assert!(Config::rate("fast").is_err());
    }
}
