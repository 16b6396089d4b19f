//! How connections are protected, as the daemon tells the processes that it starts: they do not read the configuration, which may be
//! wrong by then.

use std::ffi::OsString;
use std::path::PathBuf;

use bascule::config::Security;
use bascule::daemon::Nets;
use clap::Args;
use ipnet::IpNet;

/// The options for it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Secured {
    /// The authority's certificates
    #[arg(long, hide = true)]
    authority: Option<PathBuf>,
    /// This host's certificate
    #[arg(long, hide = true)]
    certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, hide = true)]
    key: Option<PathBuf>,
    /// What the authority has revoked
    #[arg(long, hide = true)]
    revoked: Option<PathBuf>,
    /// Peers' names
    #[arg(long = "peer-name", hide = true)]
    names: Vec<String>,
    /// Do not let the kernel encrypt
    #[arg(long, hide = true)]
    no_kernel_tls: bool,
    /// With whom in clear
    #[arg(long, hide = true, value_parser = Nets::entry)]
    in_clear: Vec<IpNet>,
}

/// The settings as options.
pub(crate) fn options(security: &Security) -> Vec<OsString> {
    let Security { authority, certificate, key, revoked, names, kernel_tls, in_clear } = security;
    let files = [("authority", authority), ("certificate", certificate), ("key", key), ("revoked", revoked)];
    let mut options = Vec::new();
    for (name, file) in files.iter().filter_map(|(name, file)| Some((name, file.as_ref()?))) {
        options.extend([format!("--{name}").into(), file.into()]);
    }
    options.extend(names.iter().map(|name| format!("--peer-name={name}").into()));
    options.extend((!kernel_tls).then(|| "--no-kernel-tls".into()));
    options.extend(in_clear.texts().iter().map(|net| format!("--in-clear={net}").into()));
    options
}

impl Secured {
    /// The options as settings.
    pub(crate) fn settings(&self) -> Security {
        Security {
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            revoked: self.revoked.clone(),
            names: self.names.clone(),
            kernel_tls: !self.no_kernel_tls,
            in_clear: Nets(self.in_clear.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bascule::config::Config;
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Args, Command};

    /// What a process that the daemon starts makes of these settings.
    fn told(command: &[&str], security: &Security) -> Security {
        let words = command.iter().map(OsString::from).chain(options(security));
        match Args::try_parse_from(std::iter::once("bascule".into()).chain(words)).expect("our own options").command {
            Command::Session(session) => session.security.settings(),
            Command::Recover(recover) => recover.security.settings(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sessions_and_recoveries_are_told_every_setting() {
        let everything = "[security]\nauthority = '/a'\ncertificate = '/c'\nkey = '/k'\nrevoked = '/r'\nnames = ['n1', 'n2']\n\
            kernel-tls = false\nin-clear = ['10.99.0.0/24', '::1']";
        for text in ["", everything] {
            let security = Config::parse(Path::new("f"), text).expect("a configuration").security;
            assert_eq!(told(&["session"], &security), security);
            assert_eq!(told(&["recover", "--adopt", "1"], &security), security);
        }
    }
}
