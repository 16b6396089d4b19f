//! Connections as DRBD 9 writes them: `connection { }`, `path { }` and `connection-mesh { }`.

use crate::known::Context;
use crate::model::{Connection, End, Mesh, Path, PeerDevice};
use crate::options::Options;
use crate::place::shown;
use crate::reader::{Reader, Step};
use crate::token::{Kind, Token};

const VOLUME_MAX: u32 = 65_535;
/// The most hosts of a mesh: DRBD's most nodes.
const MESH_MAX: usize = 32;
/// The most ends that a path is read with: one more than it may have.
const ENDS_MAX: usize = 3;

impl Reader<'_> {
    pub(crate) fn connection(&mut self, line: u32) -> Step<Connection> {
        let token = self.next();
        if token.is_string() {
            self.remark(token.line, format!("the connection's name {} means nothing", shown(&token.text)));
            self.punctuation(b'{')?;
        } else if !token.is_punctuation(b'{') {
            return Err(self.unexpected(token, "'{'"));
        }
        let mut connection = Connection {
            place: self.place(line),
            implicit: false,
            paths: Vec::new(),
            net: Options::default(),
            peer_device: Options::default(),
            peer_devices: Vec::new(),
        };
        self.section(|reader, token| reader.connection_statement(&mut connection, token));
        if connection.paths.is_empty() {
            self.wrong(line, "a connection needs two hosts");
        }
        Ok(connection)
    }

    fn connection_statement(&mut self, connection: &mut Connection, token: Token) -> Step<()> {
        let line = token.line;
        let word = if token.kind == Kind::Word { token.text.as_str() } else { "" };
        match word {
            "host" | "address" => {
                let end = self.end(&token)?;
                self.implicit_path(connection, line);
                if let Some(path) = connection.paths.first_mut() {
                    self.push_end(path, end);
                }
            }
            "path" => {
                let path = self.path(line)?;
                connection.paths.push(path);
            }
            "net" => {
                if !connection.net.is_empty() {
                    self.wrong(line, "a connection has one section net");
                }
                self.punctuation(b'{')?;
                connection.net = self.options(Context::Net);
            }
            "disk" => {
                self.punctuation(b'{')?;
                connection.peer_device = self.options(Context::PeerDevice);
            }
            "volume" => {
                let device = self.peer_device(line)?;
                connection.peer_devices.push(device);
            }
            "skip" => self.skip(line),
            _ => return Err(self.unexpected(token, "host, path, net, disk or volume")),
        }
        Ok(())
    }

    fn implicit_path(&mut self, connection: &mut Connection, line: u32) {
        match connection.paths.first() {
            None => connection.paths.push(Path { place: self.place(line), implicit: true, ends: Vec::new() }),
            Some(path) if !path.implicit => self.wrong(line, "hosts stand in paths, or outside of them, not both"),
            Some(_) => {}
        }
    }

    fn path(&mut self, line: u32) -> Step<Path> {
        self.punctuation(b'{')?;
        let mut path = Path { place: self.place(line), implicit: false, ends: Vec::new() };
        self.section(|reader, token| match token.is("host") || token.is("address") {
            true => {
                let end = reader.end(&token)?;
                reader.push_end(&mut path, end);
                Ok(())
            }
            false => Err(reader.unexpected(token, "host")),
        });
        Ok(path)
    }

    fn push_end(&mut self, path: &mut Path, end: End) {
        if path.ends.len() == ENDS_MAX - 1 {
            self.mistakes.add(&end.place, "two hosts are all that a connection has");
        }
        if path.ends.len() < ENDS_MAX {
            path.ends.push(end);
        }
    }

    /// `host NAME [address ADDRESS | port N] [via proxy on …];` or `address ADDRESS;`
    fn end(&mut self, token: &Token) -> Step<End> {
        let by_address = token.is("address");
        let place = self.place(token.line);
        let mut end =
            End { host: None, name: String::new(), address: None, proxy: None, place, port: None, by_address };
        let mut next = token.clone();
        if !by_address {
            end.name = self.string("the name of a host")?;
            next = self.next();
        }
        if next.is("address") {
            end.address = Some(self.address()?);
            next = self.next();
        } else if next.is("port") {
            end.port = Some(self.port()?);
            next = self.next();
        }
        if next.is_punctuation(b';') {
            return Ok(end);
        }
        if !next.is("via") {
            return Err(self.unexpected(next, "address, port, via or ';'"));
        }
        let token = self.next();
        if !token.is("proxy") {
            return Err(self.unexpected(token, "proxy"));
        }
        end.proxy = Some(self.proxy(token.line)?);
        Ok(end)
    }

    /// `volume N { disk { } }`
    fn peer_device(&mut self, line: u32) -> Step<PeerDevice> {
        let number = self.integer("a volume's number", VOLUME_MAX)?;
        self.punctuation(b'{')?;
        let mut options = Options::default();
        self.section(|reader, token| match token.is("disk") {
            true => {
                reader.punctuation(b'{')?;
                options = reader.options(Context::PeerDevice);
                Ok(())
            }
            false => Err(reader.unexpected(token, "disk")),
        });
        Ok(PeerDevice { number, place: self.place(line), implicit: false, options })
    }

    pub(crate) fn mesh(&mut self, line: u32) -> Step<Mesh> {
        self.punctuation(b'{')?;
        let mut mesh = Mesh { place: self.place(line), hosts: Vec::new(), net: Options::default() };
        self.section(|reader, token| {
            if token.is("hosts") {
                mesh.hosts.extend(reader.names(b';')?);
            } else if token.is("net") {
                if !mesh.net.is_empty() {
                    reader.wrong(token.line, "a mesh has one section net");
                }
                reader.punctuation(b'{')?;
                mesh.net = reader.options(Context::Net);
            } else {
                return Err(reader.unexpected(token, "hosts or net"));
            }
            Ok(())
        });
        if mesh.hosts.len() > MESH_MAX {
            self.wrong(line, format!("a mesh has more than {MESH_MAX} hosts"));
            mesh.hosts.truncate(MESH_MAX);
        }
        Ok(mesh)
    }
}
