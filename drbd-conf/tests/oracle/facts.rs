//! A configuration as a set of lines, from drbdadm's XML and from ours: what is compared.

use std::collections::BTreeSet;

use drbd_conf::{Config, Connection, End, Host, HostKind, MetaDisk, Options, Resource, Sections, Volume};

use crate::ask::Dialect;
use crate::xml::Element;

type Facts = BTreeSet<String>;

pub(crate) fn of_xml(root: &Element) -> Facts {
    let mut facts = Facts::new();
    for config in root.all("config") {
        for common in config.all("common") {
            sections(&mut facts, "common", common);
        }
        for resource in config.all("resource") {
            let place = resource.attribute("conf-file-line").unwrap_or_default();
            let line = place.rsplit(':').next().unwrap_or_default();
            let at = format!("resource {}", resource.attribute("name").unwrap_or_default());
            facts.insert(format!("{at} in line {line}"));
            resource_facts(&mut facts, &at, resource);
        }
    }
    facts.extend(root.all("!--").map(|comment| place_of(&comment.text)));
    facts
}

/// Whose a resource is, out of `# resource "NAME" on HOST: ignored, stacked`.
fn place_of(comment: &str) -> String {
    let comment = comment.trim_start_matches("# ");
    let (name, rest) = comment.rsplit_once(" on ").expect("a host");
    let (_, what) = rest.rsplit_once(": ").expect("what it is there");
    format!("{}: {what}", name.replace('"', ""))
}

fn resource_facts(facts: &mut Facts, at: &str, resource: &Element) {
    sections(facts, at, resource);
    for (index, host) in resource.all("host").enumerate() {
        let at = format!("{at} host {index}");
        let name =
            if host.attribute("floating").is_some() { "floating" } else { host.attribute("name").unwrap_or_default() };
        facts.insert(format!("{at} {name}"));
        sections(facts, &at, host);
        host.all("address").filter(|address| address.text != "(null)").for_each(|address| {
            facts.insert(format!("{at} address {}", address_of(address)));
        });
        host.all("volume").for_each(|volume| volume_facts(facts, &at, volume));
    }
    for (index, connection) in resource.all("connection").enumerate() {
        let at = format!("{at} connection {index}");
        sections(facts, &at, connection);
        for (index, path) in connection.all("path").enumerate() {
            let ends = path.all("host").map(|end| format!("{}{}", end_of(end), proxy_of(end)));
            facts.insert(format!("{at} path {index} {}", ends.collect::<Vec<_>>().join(" - ")));
        }
        for volume in connection.all("volume") {
            let at = format!("{at} volume {}", volume.attribute("vnr").unwrap_or_default());
            facts.insert(at.clone());
            sections(facts, &at, volume);
        }
    }
}

fn volume_facts(facts: &mut Facts, at: &str, volume: &Element) {
    let at = format!("{at} volume {}", volume.attribute("vnr").unwrap_or_default());
    sections(facts, &at, volume);
    for device in volume.all("device") {
        facts.insert(format!("{at} device {} minor {}", device.text, device.attribute("minor").unwrap_or_default()));
    }
    for disk in volume.all("disk").filter(|disk| !["", "(null)"].contains(&disk.text.as_str())) {
        facts.insert(format!("{at} disk {}", disk.text));
    }
    for meta in volume.all("meta-disk") {
        let index = meta.attribute("index").map(|index| format!(" [{index}]")).unwrap_or_default();
        facts.insert(format!("{at} meta-disk {}{index}", meta.text));
    }
}

fn sections(facts: &mut Facts, at: &str, element: &Element) {
    for section in element.all("section") {
        let at = format!("{at} {}", section.attribute("name").unwrap_or_default());
        for option in section.all("option") {
            let value = option.attribute("value").unwrap_or("yes");
            facts.insert(format!("{at} {} = {value}", option.attribute("name").unwrap_or_default()));
        }
        sections(facts, &at, section);
    }
}

fn address_of(address: &Element) -> String {
    let (family, port) =
        (address.attribute("family").unwrap_or_default(), address.attribute("port").unwrap_or_default());
    format!("{family} {} {port}", address.text)
}

fn end_of(end: &Element) -> String {
    let address = end.all("address").map(address_of).collect::<String>();
    format!("{} {address}", end.attribute("name").unwrap_or_default())
}

fn proxy_of(end: &Element) -> String {
    let proxy = end.all("proxy").map(|proxy| {
        let of = |name| proxy.all(name).map(address_of).collect::<String>();
        format!(" via {} {} {}", proxy.attribute("hostname").unwrap_or_default(), of("inside"), of("outside"))
    });
    proxy.collect()
}

/// Ours, without what that dialect does not know: 8.4 has no connections.
pub(crate) fn of_config(config: &Config, dialect: Dialect) -> Facts {
    let mut facts = Facts::new();
    if let Some(common) = &config.common {
        own_sections(&mut facts, "common", common, dialect);
    }
    for resource in &config.resources {
        let at = format!("resource {}", resource.name);
        facts.insert(format!("{at} in line {}", resource.place.line));
        own_sections(&mut facts, &at, &resource.sections, dialect);
        resource
            .hosts
            .iter()
            .enumerate()
            .for_each(|(index, host)| own_host(&mut facts, &format!("{at} host {index}"), host));
        if dialect == Dialect::Nine {
            let connections = resource.connections.iter().enumerate();
            connections.for_each(|(index, connection)| {
                own_connection(&mut facts, &format!("{at} connection {index}"), connection);
            });
        }
        facts.insert(own_place(resource));
    }
    facts
}

/// Whether the resource is this host's: what `drbdadm dump` has as a comment.
fn own_place(resource: &Resource) -> String {
    let ignored = if resource.mine().is_some() { "not ignored" } else { "ignored" };
    let stacked = if resource.is_stacked() { "stacked" } else { "not stacked" };
    format!("resource {}: {ignored}, {stacked}", resource.name)
}

fn own_sections(facts: &mut Facts, at: &str, sections: &Sections, dialect: Dialect) {
    let named = [
        ("options", &sections.options),
        ("net", &sections.net),
        ("disk", &sections.disk),
        ("disk", &sections.peer_device),
        ("startup", &sections.startup),
        ("handlers", &sections.handlers),
        ("proxy", &sections.proxy),
    ];
    named.iter().for_each(|(name, options)| own_options(facts, &format!("{at} {name}"), options));
    // drbdadm 9 reads over what nobody becomes by it any more.
    let promoted = sections.startup.get("become-primary-on").filter(|_| dialect == Dialect::Eight);
    facts.extend(promoted.map(|setting| format!("{at} startup become-primary-on = {}", setting.value)));
    for plugin in sections.plugins.iter() {
        facts.insert(format!("{at} proxy plugin {} = yes", plugin.name));
    }
}

fn own_options(facts: &mut Facts, at: &str, options: &Options) {
    for setting in options.iter().filter(|setting| setting.name != "become-primary-on") {
        facts.insert(format!("{at} {} = {}", setting.name, setting.value));
    }
}

fn own_host(facts: &mut Facts, at: &str, host: &Host) {
    let name = if host.kind == HostKind::Floating { "floating".to_owned() } else { host.names.join(" ") };
    facts.insert(format!("{at} {name}"));
    own_options(facts, &format!("{at} options"), &host.options);
    if let Some(address) = &host.address {
        facts.insert(format!("{at} address {} {} {}", address.family, address.ip, address.port));
    }
    host.volumes.iter().for_each(|volume| own_volume(facts, at, volume));
}

fn own_volume(facts: &mut Facts, at: &str, volume: &Volume) {
    let at = format!("{at} volume {}", volume.number);
    own_options(facts, &format!("{at} disk"), &volume.disk_options);
    own_options(facts, &format!("{at} disk"), &volume.peer_device_options);
    let (device, minor) = (volume.device.as_deref().unwrap_or_default(), volume.minor.unwrap_or_default());
    facts.insert(format!("{at} device {device} minor {minor}"));
    facts.extend(volume.disk.iter().map(|disk| format!("{at} disk {disk}")));
    match &volume.meta_disk {
        Some(MetaDisk::Internal) => drop(facts.insert(format!("{at} meta-disk internal"))),
        Some(MetaDisk::Flexible(path)) => drop(facts.insert(format!("{at} meta-disk {path}"))),
        Some(MetaDisk::Indexed(path, index)) => drop(facts.insert(format!("{at} meta-disk {path} [{index}]"))),
        None => {}
    }
}

fn own_connection(facts: &mut Facts, at: &str, connection: &Connection) {
    own_options(facts, &format!("{at} net"), &connection.net);
    own_options(facts, &format!("{at} disk"), &connection.peer_device);
    for (index, path) in connection.paths.iter().enumerate() {
        let ends = path.ends.iter().map(own_end).collect::<Vec<_>>();
        facts.insert(format!("{at} path {index} {}", ends.join(" - ")));
    }
    for device in &connection.peer_devices {
        let at = format!("{at} volume {}", device.number);
        facts.insert(at.clone());
        own_options(facts, &format!("{at} disk"), &device.options);
    }
}

fn own_end(end: &End) -> String {
    let shown = |address: &Option<drbd_conf::Address>| {
        address
            .as_ref()
            .map(|address| format!("{} {} {}", address.family, address.ip, address.port))
            .unwrap_or_default()
    };
    let proxy = end
        .proxy
        .as_ref()
        .map(|proxy| format!(" via {} {} {}", proxy.names.join(" "), shown(&proxy.inside), shown(&proxy.outside)));
    format!("{} {}{}", end.name, shown(&end.address), proxy.unwrap_or_default())
}
