//! What libxl and its helpers answer, one converter for each of their conventions.

use std::ffi::{CStr, c_int};
use std::fmt;
use std::ptr::NonNull;

use xen_sys as sys;

use super::xenstore;
use crate::ids::DomId;
use crate::toolstack::RunState;

/// A call to libxl or its helpers failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no context to be had: most often this is not a Xen host, or the caller is not root.
    #[error("No connection to Xen: {code} ({said})")]
    Open {
        /// What libxl returned.
        code: Code,
        /// What it logged.
        said: Said,
    },
    /// A libxl function failed.
    #[error("{function} of {subject} failed: {code} ({said})")]
    Libxl {
        /// The function, as in libxl.h.
        function: &'static str,
        /// What it was about.
        subject: Subject,
        /// What it returned.
        code: Code,
        /// What it logged: libxl returns only a number, its log line says why.
        said: Said,
    },
    /// libxl did not take a configuration.
    #[error("Domain configuration is not valid: {code} ({said})")]
    Config {
        /// What libxl returned.
        code: Code,
        /// What it logged.
        said: Said,
    },
    /// A configuration is no JSON object at all.
    #[error("Domain configuration is not JSON")]
    Json(#[source] serde_json::Error),
    /// No domain has this number.
    #[error("Domain {domid} does not exist")]
    NoDomain {
        /// The number.
        domid: DomId,
    },
    /// No domain has this name or number.
    #[error("Domain {name:?} does not exist")]
    NoDomainNamed {
        /// What was asked for.
        name: String,
    },
    /// Resume was asked for a domain that is not suspended: that would corrupt its registers.
    #[error("Domain {domid} is {state:?}, not suspended")]
    NotSuspended {
        /// The domain.
        domid: DomId,
        /// What it is doing instead.
        state: RunState,
    },
    /// A memory stream is none that libxl can go on with.
    #[error("Memory stream cannot be used: {reason}")]
    Stream {
        /// Why not, as the rest of a sentence.
        reason: &'static str,
    },
    /// A string for libxl holds a NUL byte.
    #[error("{text:?} contains a NUL byte")]
    Nul {
        /// The string.
        text: String,
    },
    /// Xenstore, where we ask it ourselves.
    #[error("Xenstore does not answer")]
    Xenstore(#[from] xenstore::Error),
    /// The operating system refused what an operation needs to wait for its end.
    #[error("Waiting for libxl failed")]
    Wait(#[source] std::io::Error),
}

/// Shorthand of this directory.
pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What libxl returned, where it was libxl that refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Open { code, .. } | Self::Libxl { code, .. } | Self::Config { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What a call was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One domain.
    Domain(DomId),
    /// A domain that has no number yet.
    NewDomain,
    /// The host.
    Host,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domid) => write!(f, "domain {domid}"),
            Self::NewDomain => f.write_str("a new domain"),
            Self::Host => f.write_str("this host"),
        }
    }
}

impl From<DomId> for Subject {
    fn from(domid: DomId) -> Self {
        Self::Domain(domid)
    }
}

/// libxl's error number, negative (libxl.h, `libxl_error`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub(super) sys::libxl_error);

impl Code {
    /// No such domain.
    pub const DOMAIN_NOTFOUND: Self = Self(sys::libxl_error::ERROR_DOMAIN_NOTFOUND);
    /// The guest did not do in time what it was asked for; it runs on.
    pub const GUEST_TIMEDOUT: Self = Self(sys::libxl_error::ERROR_GUEST_TIMEDOUT);
    /// The operation was aborted on request.
    pub const ABORTED: Self = Self(sys::libxl_error::ERROR_ABORTED);
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: takes a number, returns a static string or NULL (_libxl_types.h, libxl_error_to_string).
        let name = unsafe { sys::libxl_error_to_string(self.0) };
        let Some(name) = NonNull::new(name.cast_mut()) else {
            return write!(f, "libxl error {}", self.0.0);
        };
        // SAFETY: a NUL-terminated string of libxl's static table.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        write!(f, "ERROR_{} ({})", name.to_string_lossy().to_uppercase(), self.0.0)
    }
}

/// What libxl logged as errors during one call: the first line is nearest to the cause, the last is the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

impl Said {
    pub(super) fn add(&mut self, line: String) {
        if self.first.is_none() {
            self.first = Some(line);
        } else {
            self.last = Some(line);
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.first, &self.last) {
            (None, _) => f.write_str("it logged no reason"),
            (Some(first), None) => f.write_str(first),
            (Some(first), Some(last)) => write!(f, "{first}; {last}"),
        }
    }
}

/// libxl's convention: 0 or positive is success, negative an error number.
pub(super) fn check_rc(rc: c_int) -> std::result::Result<c_int, Code> {
    if rc < 0 { Err(Code(sys::libxl_error(rc))) } else { Ok(rc) }
}

/// The convention of functions that return an object: NULL is failure.
pub(super) fn check_ptr<T>(pointer: *mut T) -> std::result::Result<NonNull<T>, Code> {
    NonNull::new(pointer).ok_or(Code(sys::libxl_error::ERROR_FAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names() {
        assert_eq!(check_rc(-8), Err(Code::GUEST_TIMEDOUT));
        assert_eq!(check_rc(0), Ok(0));
        assert_eq!(Code::ABORTED.to_string(), "ERROR_ABORTED (-22)");
        assert_eq!(Code(sys::libxl_error(-9999)).to_string(), "libxl error -9999");
    }

    #[test]
    fn the_first_and_the_last_line_are_kept() {
        let mut said = Said::default();
        assert_eq!(said.to_string(), "it logged no reason");
        for line in ["cause", "between", "outcome"] {
            said.add(line.to_owned());
        }
        assert_eq!(said.to_string(), "cause; outcome");
    }
}
