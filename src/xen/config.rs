//! A domain's configuration: libxl's own JSON text outside, a `libxl_domain_config` only while libxl needs one.

use std::ffi::CString;
use std::fmt;

use serde_json::Value;
use xen_sys as sys;

use super::context::Context;
use super::disposed::Disposed;
use super::error::{Error, Result, Subject, check_rc};
use super::handle::Handle;
use super::memory::Malloced;

/// What a domain is made from: libxl's JSON (`libxl_domain_config_to_json`), known to be JSON, not yet seen by libxl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainConfig(Value);

impl DomainConfig {
    /// Takes libxl's JSON.
    ///
    /// # Errors
    /// [`Error::Json`] when it is no JSON object. Whether libxl understands it is known when a domain is made of it.
    pub fn from_json(text: &str) -> Result<Self> {
        let object: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(Error::Json)?;
        Ok(Self(Value::Object(object)))
    }

    /// The text that libxl takes.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.0.to_string()
    }

    /// The JSON as a value, to read from.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The domain's name, empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.pointer("/c_info/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The same with another name.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        self.0["c_info"]["name"] = Value::from(name);
        self
    }

    /// The same for any number: the one that the domain had is not asked for where it is made anew.
    #[must_use]
    pub fn without_domid(mut self) -> Self {
        if let Some(create) = self.0.pointer_mut("/c_info").and_then(Value::as_object_mut) {
            create.remove("domid");
        }
        self
    }

    /// The domain's UUID, if it has a valid one.
    #[must_use]
    pub fn uuid(&self) -> Option<uuid::Uuid> {
        self.0.pointer("/c_info/uuid")?.as_str()?.parse().ok()
    }
}

impl From<serde_json::Map<String, Value>> for DomainConfig {
    fn from(object: serde_json::Map<String, Value>) -> Self {
        Self(Value::Object(object))
    }
}

impl fmt::Display for DomainConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The configuration as libxl takes it.
#[derive(Debug)]
pub(super) struct Raw(pub(super) Disposed<sys::libxl_domain_config>);

impl Raw {
    /// Has libxl read its JSON.
    pub(super) fn parse(handle: &Handle, json: &str) -> Result<Self> {
        let text = CString::new(json).map_err(|_| Error::Nul { text: json.to_owned() })?;
        let mut raw = Disposed::<sys::libxl_domain_config>::new();
        handle.forget();
        let config = raw.as_mut_ptr();
        // SAFETY: an initialised value and a NUL-terminated string (_libxl_types.h, libxl_domain_config_from_json).
        let rc = unsafe { sys::libxl_domain_config_from_json(handle.ctx(), config, text.as_ptr()) };
        check_rc(rc).map_err(|code| Error::Config { code, said: handle.said() })?;
        Ok(Self(raw))
    }

    /// The same for a domain that is about to be made: the number that it had elsewhere is not asked for here, the hypervisor
    /// gives the next free one (`INVALID_DOMID`, libxl.h).
    pub(super) fn for_new_domain(handle: &Handle, config: &DomainConfig) -> Result<Self> {
        let mut raw = Self::parse(handle, &config.to_json())?;
        raw.0.c_info.domid = u32::MAX;
        Ok(raw)
    }

    /// The configuration of a running domain as libxl tells it.
    pub(super) fn retrieve(handle: &Handle, domid: crate::ids::DomId) -> Result<Self> {
        let mut raw = Disposed::<sys::libxl_domain_config>::new();
        let config = raw.as_mut_ptr();
        handle.call("libxl_retrieve_domain_configuration", domid, |ctx| {
            // SAFETY: an initialised value, and no ao_how: it has ended when it returns (libxl.h).
            unsafe { sys::libxl_retrieve_domain_configuration(ctx, domid.0, config, std::ptr::null()) }
        })?;
        Ok(Self(raw))
    }

    pub(super) fn text(&mut self, handle: &Handle, subject: Subject) -> Result<String> {
        let config = self.0.as_mut_ptr();
        let text = handle.call_ptr("libxl_domain_config_to_json", subject, |ctx| {
            // SAFETY: a valid value; the result is a malloc'd string (_libxl_types.h).
            unsafe { sys::libxl_domain_config_to_json(ctx, config) }
        })?;
        Ok(Malloced::from(text).string())
    }
}

impl Context {
    /// What libxl makes of a configuration: the same with its own spelling, and without what is at its default.
    ///
    /// # Errors
    /// [`Error::Config`] when libxl does not understand it.
    pub fn normalised(&self, config: &DomainConfig) -> Result<DomainConfig> {
        let text = Raw::parse(&self.handle, &config.to_json())?.text(&self.handle, Subject::NewDomain)?;
        DomainConfig::from_json(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DomainConfig {
        DomainConfig::from_json(r#"{"c_info": {"type": "pv", "name": "a"}, "b_info": {"type.pv": {}}}"#).expect("JSON")
    }

    #[test]
    fn name_and_uuid_are_found_and_changed() {
        let config = config().with_name("b--incoming");
        assert_eq!((config.name(), config.uuid()), ("b--incoming", None));
        let uuid = "11111111-2222-3333-4444-555555555555";
        let config = DomainConfig::from_json(&format!(r#"{{"c_info": {{"uuid": "{uuid}"}}}}"#)).expect("JSON");
        assert_eq!((config.name(), config.uuid()), ("", uuid.parse().ok()));
        assert_eq!(config.with_name("c").name(), "c");
        assert_eq!(DomainConfig::from_json("{}").expect("JSON").with_name("d").name(), "d");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "7", "{\"c_info\":"] {
            assert!(matches!(DomainConfig::from_json(text), Err(Error::Json(_))), "{text}");
        }
    }

    #[test]
    #[ignore = "needs Xen: libxl reads JSON only in a context"]
    fn libxl_reads_and_writes_a_configuration() {
        let context = Context::open().expect("Xen");
        let normal = context.normalised(&config()).expect("libxl");
        assert_eq!(normal.value().pointer("/c_info/name"), Some(&Value::from("a")));
        let wrong = DomainConfig::from_json(r#"{"c_info": {"type": "pvx"}}"#).expect("JSON");
        let error = context.normalised(&wrong).expect_err("no such type");
        assert!(
            matches!(&error, Error::Config { said, .. } if said.to_string().contains("libxl_domain_config")),
            "{error}"
        );
    }
}
