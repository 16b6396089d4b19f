//! Hosts: `on NAME { }`, `floating ADDRESS { }` and `stacked-on-top-of RESOURCE { }`.

use crate::known::Context;
use crate::model::{Address, Family, Host, HostKind, MetaDisk, Proxy, Resource, Volume};
use crate::options::Options;
use crate::place::shown;
use crate::reader::{Reader, Step};
use crate::token::{Kind, Token};

/// The highest number of a node (drbd_limits.h, DRBD_NODE_ID_MAX).
const NODE_ID_MAX: u32 = 31;
const VOLUME_MAX: u32 = 65_535;
/// The most hosts of a resource: DRBD takes 32, and two may lie on top of them.
const HOSTS_MAX: usize = 64;

impl Reader<'_> {
    pub(crate) fn host(&mut self, resource: &mut Resource, names: Vec<String>, line: u32) {
        let host = self.new_host(HostKind::On, names, line);
        self.host_body(resource, host);
    }

    pub(crate) fn floating(&mut self, resource: &mut Resource, line: u32) -> Step<()> {
        let address = self.address()?;
        let mut host = self.new_host(HostKind::Floating, vec![floating_name(&address)], line);
        host.address = Some(address);
        let token = self.next();
        match token.kind {
            Kind::Punctuation(b'{') => self.host_body(resource, host),
            Kind::Punctuation(b';') => {
                self.claim_host(&host);
                self.push_host(resource, host);
            }
            _ => return Err(self.unexpected(token, "'{' or ';'")),
        }
        Ok(())
    }

    fn host_body(&mut self, resource: &mut Resource, mut host: Host) {
        self.claim_host(&host);
        self.section(|reader, token| reader.host_statement(&mut host, token));
        self.push_host(resource, host);
    }

    fn host_statement(&mut self, host: &mut Host, token: Token) -> Step<()> {
        let line = token.line;
        let word = if token.kind == Kind::Word { token.text.clone() } else { String::new() };
        match word.as_str() {
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                let what = word.trim_start_matches("flexible-");
                self.claim_of_host(&host.names, what, line);
                let mut volume = self.implicit(&mut host.volumes, line);
                let done = self.volume_statement(&token, &mut volume, Some(&host.names));
                host.volumes.insert(0, volume);
                done?;
            }
            "volume" => {
                let number = self.integer("a volume's number", VOLUME_MAX)?;
                let volume = self.volume(number, Some(&host.names), line)?;
                self.insert(&mut host.volumes, volume, line)?;
            }
            "address" if host.kind == HostKind::Floating => {
                return Err(self.unexpected(token, "a statement without an address, which floating has"));
            }
            "address" => {
                self.claim_of_host(&host.names, "address", line);
                host.address = Some(self.address()?);
                self.punctuation(b';')?;
            }
            // 8.4's second address of a link, for what DRBD 9 calls a path.
            "alternate-link-address" => {
                self.address()?;
                self.punctuation(b';')?;
                self.remark(line, "alternate-link-address is not looked at");
            }
            "node-id" => self.node_id(host, line)?,
            "options" => {
                self.punctuation(b'{')?;
                host.options = self.options(Context::Resource);
            }
            "proxy" => host.proxy = Some(self.proxy(line)?),
            "skip" => self.skip(line),
            _ => return Err(self.unexpected(token, "a statement of a host")),
        }
        Ok(())
    }

    /// `stacked-on-top-of`: which disks it has follows from the resource below.
    pub(crate) fn stacked(&mut self, resource: &mut Resource, line: u32) -> Step<()> {
        let lower = self.string("the name of a resource")?;
        self.punctuation(b'{')?;
        self.claim(&format!("A resource on top of {}", shown(&lower)), format!("stacked:{lower}"), line);
        let mut host = self.new_host(HostKind::Stacked(lower), Vec::new(), line);
        self.section(|reader, token| reader.stacked_statement(&mut host, token));
        self.push_host(resource, host);
        Ok(())
    }

    fn stacked_statement(&mut self, host: &mut Host, token: Token) -> Step<()> {
        let line = token.line;
        let word = if token.kind == Kind::Word { token.text.clone() } else { String::new() };
        match word.as_str() {
            "device" => {
                let mut volume = self.implicit(&mut host.volumes, line);
                let done = self.volume_statement(&token, &mut volume, Some(&[]));
                host.volumes.insert(0, Volume { meta_disk: Some(MetaDisk::Internal), ..volume });
                done?;
            }
            "volume" => {
                let number = self.integer("a volume's number", VOLUME_MAX)?;
                let volume = self.stacked_volume(number, line)?;
                self.insert(&mut host.volumes, volume, line)?;
            }
            "address" => {
                host.address = Some(self.address()?);
                self.punctuation(b';')?;
            }
            "node-id" => self.node_id(host, line)?,
            "proxy" => host.proxy = Some(self.proxy(line)?),
            _ => return Err(self.unexpected(token, "device, volume, address, node-id or proxy")),
        }
        Ok(())
    }

    fn stacked_volume(&mut self, number: u32, line: u32) -> Step<Volume> {
        self.punctuation(b'{')?;
        let mut volume = Volume::new(number, self.place(line));
        self.section(|reader, token| match token.is("device") || token.is("disk") {
            true => {
                reader.volume_statement(&token, &mut volume, None)?;
                match volume.disk.take() {
                    Some(_) => {
                        reader.wrong(token.line, "a stacked volume has no disk but the one below");
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
            false => Err(reader.unexpected(token, "device or disk")),
        });
        volume.meta_disk = Some(MetaDisk::Internal);
        Ok(volume)
    }

    fn node_id(&mut self, host: &mut Host, line: u32) -> Step<()> {
        let id = self.integer("a node-id", NODE_ID_MAX)?;
        self.punctuation(b';')?;
        self.claim_of_host(&host.names, "node-id", line);
        self.claim_in_resource(&format!("Node-id {id}"), format!("node-id {id}"), line);
        host.node_id = Some(id);
        Ok(())
    }

    /// `proxy on NAME { }`, the keyword read already.
    pub(crate) fn proxy(&mut self, line: u32) -> Step<Proxy> {
        let token = self.next();
        if !token.is("on") {
            return Err(self.unexpected(token, "on"));
        }
        let names = self.names(b'{')?;
        let (options, plugins) = (Options::default(), Options::default());
        let mut proxy = Proxy { names, inside: None, outside: None, options, plugins };
        self.section(|reader, token| reader.proxy_statement(&mut proxy, token));
        for (word, address) in [("inside", &proxy.inside), ("outside", &proxy.outside)] {
            if address.is_none() {
                self.wrong(line, format!("the proxy has no {word}"));
            }
        }
        Ok(proxy)
    }

    fn proxy_statement(&mut self, proxy: &mut Proxy, token: Token) -> Step<()> {
        if token.is("inside") || token.is("outside") {
            let address = self.address()?;
            self.punctuation(b';')?;
            let place = if token.is("inside") { &mut proxy.inside } else { &mut proxy.outside };
            *place = Some(address);
            return Ok(());
        }
        if !token.is("options") {
            return Err(self.unexpected(token, "inside, outside or options"));
        }
        self.punctuation(b'{')?;
        (proxy.options, proxy.plugins) = self.proxy_options();
        Ok(())
    }

    fn new_host(&self, kind: HostKind, names: Vec<String>, line: u32) -> Host {
        Host {
            kind,
            names,
            place: self.place(line),
            node_id: None,
            address: None,
            volumes: Vec::new(),
            options: Options::default(),
            proxy: None,
        }
    }

    fn push_host(&mut self, resource: &mut Resource, host: Host) {
        match resource.hosts.len() < HOSTS_MAX {
            true => resource.hosts.push(host),
            false => self.mistakes.add(&host.place, format!("there are more than {HOSTS_MAX} hosts")),
        }
    }

    fn claim_host(&mut self, host: &Host) {
        for name in &host.names {
            self.claim_in_resource(&format!("Host {}", shown(name)), format!("on {name}"), host.place.line);
        }
    }

    fn claim_of_host(&mut self, names: &[String], what: &str, line: u32) {
        for name in names {
            self.claim_in_resource(&format!("{what} of host {}", shown(name)), format!("{name}: {what}"), line);
        }
    }
}

/// What a floating host is called where a name is needed.
pub(crate) fn floating_name(address: &Address) -> String {
    match address.family {
        Family::Ipv6 => format!("ipv6 [{}]:{}", address.ip, address.port),
        _ => format!("{}:{}", address.ip, address.port),
    }
}
