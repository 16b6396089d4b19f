//! `resource NAME { }`, and the body that `common` and templates share with it.

use std::mem;

use crate::known::Context;
use crate::model::{Resource, Sections, Volume};
use crate::place::{Place, shown};
use crate::reader::{Reader, Step};
use crate::token::{Kind, Token};

/// The highest number of a volume (drbd_limits.h, DRBD_VOLUME_MAX).
const VOLUME_MAX: u32 = 65_535;
/// The most resources.
const RESOURCES_MAX: usize = 8192;

pub(crate) fn empty(name: String, place: Place) -> Resource {
    Resource {
        name,
        place,
        template: None,
        sections: Sections::default(),
        hosts: Vec::new(),
        connections: Vec::new(),
        me: None,
        volumes: Vec::new(),
        meshes: Vec::new(),
        inherits: None,
        of_nine: false,
    }
}

impl Reader<'_> {
    pub(crate) fn resource(&mut self) -> Step<()> {
        let named = self.next();
        if !named.is_string() {
            return Err(self.unexpected(named, "the name of a resource"));
        }
        let (name, line) = (named.text, named.line);
        if name.is_empty() || name.chars().any(|c| c.is_ascii_control()) {
            self.wrong(line, format!("'{}' is no name of a resource", shown(&name)));
        }
        self.punctuation(b'{')?;
        let before = (self.mistakes.told.len(), self.mistakes.untold);
        self.claim(&format!("Resource {}", shown(&name)), format!("resource:{name}"), line);
        self.resource_claims.clear();
        let mut resource = empty(name, self.place(line));
        self.resource_body(&mut resource);
        self.keep(resource, (self.mistakes.told.len(), self.mistakes.untold) == before);
        Ok(())
    }

    /// Judged any further is what is whole: what follows from a mistake would be told as another.
    fn keep(&mut self, resource: Resource, whole: bool) {
        match whole {
            true if self.config.resources.len() < RESOURCES_MAX => self.config.resources.push(resource),
            true => self.mistakes.add(&resource.place, format!("there are more than {RESOURCES_MAX} resources")),
            false => {
                self.broken.insert(resource.name);
            }
        }
    }

    /// The statements up to the brace. drbdadm takes the end of the file for it, too.
    pub(crate) fn resource_body(&mut self, resource: &mut Resource) {
        loop {
            let token = self.next();
            match token.kind {
                Kind::Punctuation(b'}') => return,
                Kind::End => {
                    self.remark(
                        token.line,
                        format!("{} is not closed; the file's end closes it", shown(&resource.name)),
                    );
                    return self.push_back(token);
                }
                _ => {}
            }
            if let Err(failed) = self.resource_statement(resource, token) {
                self.give_up(failed);
            }
        }
    }

    fn resource_statement(&mut self, resource: &mut Resource, token: Token) -> Step<()> {
        let line = token.line;
        let word = if token.kind == Kind::Word { token.text.as_str() } else { "" };
        match word {
            "on" => {
                let names = self.names(b'{')?;
                self.host(resource, names, line);
            }
            "floating" => self.floating(resource, line)?,
            "stacked-on-top-of" => self.stacked(resource, line)?,
            "connection" => {
                let connection = self.connection(line)?;
                resource.connections.push(connection);
            }
            "connection-mesh" => {
                let mesh = self.mesh(line)?;
                resource.meshes.push(mesh);
            }
            "template-file" => self.template(resource, line)?,
            "skip" => self.skip(line),
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" | "volume" | "tiebreaker" => {
                self.resource_volume(resource, token)?;
            }
            _ => self.resource_section(&mut resource.sections, token)?,
        }
        Ok(())
    }

    /// A statement that is about volumes, of all hosts that have nothing else.
    fn resource_volume(&mut self, resource: &mut Resource, token: Token) -> Step<()> {
        let line = token.line;
        if token.is("volume") {
            let number = self.integer("a volume's number", VOLUME_MAX)?;
            let volume = self.volume(number, None, line)?;
            return self.insert(&mut resource.volumes, volume, line);
        }
        if token.is("device") {
            self.claim_in_resource("A device of the resource", "device".into(), line);
        }
        if token.is("disk") {
            let next = self.next();
            if next.is_punctuation(b'{') {
                self.claim_in_resource("A section disk", "disk".into(), line);
                let (disk, peer_device) = self.disk_options();
                resource.sections.disk.extend(disk);
                resource.sections.peer_device.extend(peer_device);
                return Ok(());
            }
            self.push_back(next);
        }
        let mut volume = self.implicit(&mut resource.volumes, line);
        let done = self.volume_statement(&token, &mut volume, None);
        resource.volumes.insert(0, volume);
        done.map(drop)
    }

    /// The one volume of a section that names none, taken out to be changed.
    pub(crate) fn implicit(&mut self, volumes: &mut Vec<Volume>, line: u32) -> Volume {
        match volumes.first() {
            Some(only) if only.implicit && volumes.len() == 1 => volumes.remove(0),
            None => Volume { implicit: true, ..Volume::new(0, self.place(line)) },
            Some(_) => {
                self.wrong(line, "this is outside of a volume, and there are volumes with numbers");
                volumes.remove(0)
            }
        }
    }

    /// A section that `common` and templates may have, too.
    fn resource_section(&mut self, sections: &mut Sections, token: Token) -> Step<()> {
        let line = token.line;
        let word = token.text.as_str();
        if word == "protocol" && matches!(token.kind, Kind::Word | Kind::Quoted) {
            self.claim_in_resource("A protocol", "protocol".into(), line);
            let (_, setting) = self.option(token, &[Context::Net], str::to_owned)?;
            sections.net.push(setting);
            return Ok(());
        }
        let is_section = ["net", "syncer", "startup", "handlers", "proxy", "options"].contains(&word);
        if token.kind != Kind::Word || !is_section {
            return Err(self.unexpected(token, "a statement of a resource"));
        }
        self.claim_in_resource(&format!("A section {word}"), word.to_owned(), line);
        self.punctuation(b'{')?;
        match word {
            "net" => sections.net.extend(self.options(Context::Net)),
            "syncer" => self.syncer(sections),
            "startup" => sections.startup = self.startup(),
            "handlers" => sections.handlers = self.handlers(),
            "proxy" => (sections.proxy, sections.plugins) = self.proxy_options(),
            _ => sections.options.extend(self.options(Context::Resource)),
        }
        Ok(())
    }

    /// `template-file FILE;`: what is `common` there stands here in the place of `common`.
    fn template(&mut self, resource: &mut Resource, line: u32) -> Step<()> {
        let name = self.string("the name of a file")?;
        self.punctuation(b';')?;
        let (path, place) = (self.beside(&name), self.place(line));
        let (common, claims) = (self.config.common.take(), mem::take(&mut self.resource_claims));
        let depth = mem::replace(&mut self.in_template, true);
        match depth {
            true => self.mistakes.add(&place, "a template has no template"),
            false => self.within_template(&path, &place, Reader::template_body),
        }
        self.in_template = depth;
        resource.inherits = mem::replace(&mut self.config.common, common).map(Box::new);
        resource.template = Some(path);
        self.resource_claims = claims;
        Ok(())
    }

    fn template_body(&mut self) {
        let token = self.next();
        if !token.is("common") {
            let _ = self.unexpected(token, "common");
            return;
        }
        if let Ok(()) = self.punctuation(b'{') {
            self.config.common = Some(self.shared("a template"));
        }
    }
}
