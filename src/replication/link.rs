//! What it takes to connect a resource to its peer once more. DRBD 8.4 forgets all of it when a split brain, or somebody, makes
//! the connection StandAlone.

use drbd_nl::{ConnectionStatus, NetConf, Peer, Secret};
use serde::{Deserialize, Serialize};

/// A resource's connection as it was: addresses and all options that the kernel shows.
///
/// As JSON it has the connection's shared secret in clear, for nothing else on the host may know it: whoever keeps a `Link` keeps it for
/// root alone, and does not send it anywhere. Debug does not show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The resource, both addresses, and the peer's node id (DRBD 9).
    pub peer: Peer,
    /// All options but the secret, and but those that only steer a single attempt to connect.
    pub net: NetConf,
    /// The shared secret: the kernel shows it to a reader with `CAP_SYS_ADMIN`.
    #[serde(default, with = "in_clear", skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
}

impl Link {
    /// The link of a connection that exists.
    #[must_use]
    pub fn of(resource: &str, connection: &ConnectionStatus) -> Link {
        let mut net = connection.net.clone();
        let secret = net.shared_secret.take().filter(|secret| !secret.expose().is_empty());
        (net.discard_my_data, net.tentative) = (None, None);
        Link { peer: connection.peer(resource), net, secret }
    }

    /// The resource's name.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.peer.resource
    }

    /// Whether the peers prove to each other that they know a secret, and we do not know it: then nobody can connect by this.
    #[must_use]
    pub fn secret_unknown(&self) -> bool {
        let authenticates = self.net.cram_hmac_alg.as_ref().is_some_and(|digest| !digest.is_empty());
        authenticates && self.secret.is_none()
    }

    /// All options, the secret too, as a request to connect wants them.
    #[must_use]
    pub fn options(&self) -> NetConf {
        NetConf { shared_secret: self.secret.clone(), ..self.net.clone() }
    }
}

/// [`Secret`] hides itself from serde; here it must not.
mod in_clear {
    use drbd_nl::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

#[cfg(test)]
mod tests {
    use drbd_nl::Protocol;

    use super::*;

    fn link(secret: Option<&str>) -> Link {
        let peer = Peer {
            resource: "r0".to_owned(),
            peer_node_id: None,
            my_addr: "10.0.0.1:7789".parse().unwrap(),
            peer_addr: "10.0.0.2:7789".parse().unwrap(),
        };
        let net =
            NetConf { cram_hmac_alg: Some("sha1".to_owned()), wire_protocol: Some(Protocol::C), ..NetConf::default() };
        Link { peer, net, secret: secret.map(Secret::new) }
    }

    #[test]
    fn a_link_comes_back_from_json_and_does_not_show_its_secret() {
        for link in [link(Some("open sesame")), link(None)] {
            let json = serde_json::to_string(&link).unwrap();
            assert_eq!(serde_json::from_str::<Link>(&json).unwrap(), link);
            assert!(!format!("{link:?}").contains("sesame"));
        }
        assert_eq!(link(Some("open sesame")).options().shared_secret, Some(Secret::new("open sesame")));
    }

    #[test]
    fn a_secret_that_is_needed_and_not_there_is_told() {
        assert!(link(None).secret_unknown());
        assert!(!link(Some("open sesame")).secret_unknown());
        let mut open = link(None);
        open.net.cram_hmac_alg = Some(String::new());
        assert!(!open.secret_unknown());
    }
}
