//! The disk hotplug program: `block-drbd add|remove`.
//!
//! `add` makes the volume that the disk's target names Primary, lays our layer over it and gives that to the block backend;
//! `remove` takes the layer away and makes the volume Secondary when its last local user is gone. Targets: `RES` (which must
//! have exactly one volume) and `RES/VOL`.
//!
//! Invariants: no volume is attached while a peer is Primary, unless an open migration on this host says so; none twice on
//! this host; a volume of an open migration only for that migration's domain. What DRBD's configuration permits
//! changes none of them.

mod users;
mod volume;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drbd_nl::{Change, Drbd};
use nix::fcntl::Flock;

use self::volume::Volume;
use super::{Backend, CALL_TIME_MAX, domain_name};
use crate::admission::{self, Asker, Handover};
use crate::config::{self, Config};
use crate::dm::DeviceNumber;
use crate::ids::{DomId, VolumeId};
use crate::journal;
use crate::layer::{self, Layer};
use crate::role::{self, Patience, demote_with_retry, promote_with_retry};
use crate::wait::poll_until;
use crate::xen::xenstore;

/// How long an open migration may take to decide: its source releases the volumes meanwhile.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(25);
/// How long DRBD may take to make the volume Primary, the peer's demotion included.
const PROMOTE_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a backend may take to close the layer of a domain that is gone.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long DRBD may take to make the volume Secondary.
const DEMOTE_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long to try to undo a promotion when the call fails after it.
const UNDO_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a disk was not attached or not detached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Xenstore failed.
    #[error("Xenstore failed")]
    Xenstore(#[from] xenstore::Error),
    /// The backend's directory does not say which volume.
    #[error("Disk has no target")]
    NoTarget,
    /// DRBD cannot be asked.
    #[error("DRBD could not be asked about {resource}")]
    Drbd {
        /// The resource.
        resource: String,
        /// Why.
        #[source]
        source: drbd_nl::Error,
    },
    /// The target names no volume of this host.
    #[error(transparent)]
    Target(#[from] volume::NotAVolume),
    /// Another host has the volume.
    #[error("{volume} is Primary on {peer}: a domain runs on it there, or did")]
    PeerPrimary {
        /// The volume.
        volume: VolumeId,
        /// The other host, by its connection's name or its address.
        peer: String,
    },
    /// The migration's other host did not let the volume go.
    #[error("{volume} was not let go for the migration: {state}")]
    NotReleased {
        /// The volume.
        volume: VolumeId,
        /// What DRBD showed last.
        state: String,
    },
    /// An open migration has the volume, and not for this domain.
    #[error("{volume} must not be attached now")]
    Refused {
        /// The volume.
        volume: VolumeId,
        /// What the migration said.
        #[source]
        source: admission::Refusal,
    },
    /// The records of open migrations cannot be read.
    #[error("Open migrations could not be looked up")]
    Admission(#[from] admission::Error),
    /// A migration of this host that has not ended keeps the volume.
    #[error("{volume} belongs to the unfinished migration {id} of {name}: bascule recover --dry-run {id}")]
    Unfinished {
        /// The volume.
        volume: VolumeId,
        /// The migration.
        id: uuid::Uuid,
        /// Its domain.
        name: String,
    },
    /// Nobody can tell where the journals are.
    #[error("The configuration is wrong: bascule config show")]
    Config(#[from] config::Error),
    /// The journals cannot be read.
    #[error("Unfinished migrations could not be looked up")]
    Journal(#[from] journal::Error),
    /// Another domain of this host has the volume.
    #[error("{volume} is attached to {user} on this host already")]
    Attached {
        /// The volume.
        volume: VolumeId,
        /// The domain.
        user: String,
    },
    /// Another call for the same resource did not end.
    #[error("Another call of block-drbd for {resource} did not end")]
    Locked {
        /// The resource.
        resource: String,
    },
    /// The role did not change.
    #[error(transparent)]
    Role(#[from] role::Error),
    /// The layer was not laid or not removed.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// This host's block backends cannot be listed.
    #[error("Block backends could not be listed")]
    Backends(#[source] io::Error),
}

/// Who may be Primary beside us while we become it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permission {
    /// Nobody: no migration is open.
    Alone,
    /// What the migration said.
    Granted(Handover),
}

/// One call of the program.
#[derive(Debug)]
pub struct Call<'a> {
    backend: Backend<'a>,
    dir: PathBuf,
    config: PathBuf,
    started: Instant,
}

impl<'a> Call<'a> {
    /// A call for a backend; `dir` is where the records of open migrations are ([`admission::DIR`]), `config` the configuration
    /// ([`config::FILE`]), which says where the journals are.
    #[must_use]
    pub fn new(backend: Backend<'a>, dir: &Path, config: &Path) -> Self {
        Self { backend, dir: dir.to_owned(), config: config.to_owned(), started: Instant::now() }
    }

    /// Attaches the disk. Nothing happens when it is attached already.
    ///
    /// # Errors
    /// Nothing has changed then, apart from what is logged.
    pub fn add(&self) -> Result<(), Error> {
        if self.backend.read("physical-device")?.is_some() {
            return Ok(());
        }
        let target = self.backend.read("params")?.ok_or(Error::NoTarget)?;
        let (mut drbd, volume) = find(&target)?;
        let permission = self.permission(&volume.id)?;
        let _turn = self.lock(&volume.id.resource)?;
        self.check_unused(&volume)?;
        let change = self.promote(&mut drbd, &volume, permission)?;
        let attached = check_alone(&mut drbd, &volume, permission).and_then(|()| self.attach(&volume));
        attached.map_err(|error| undo_promotion(&mut drbd, &volume, change, error))
    }

    /// Whether, and how, the volume may be attached now, as far as open migrations have a say.
    fn permission(&self, volume: &VolumeId) -> Result<Permission, Error> {
        let Some(ticket) = admission::lookup(&self.dir, volume)? else {
            return self.check_finished(volume).map(|()| Permission::Alone);
        };
        let asker = Asker {
            volume: volume.clone(),
            domid: self.backend.domid,
            domain: domain_name(self.backend.nodes, self.backend.domid)?.unwrap_or_default(),
        };
        let answer = ticket.ask(&asker, self.deadline(ANSWER_WAIT_MAX));
        let handover = answer.map_err(|source| Error::Refused { volume: volume.clone(), source })?;
        Ok(Permission::Granted(handover))
    }

    /// Refuses a volume that a migration without a process keeps for its domain. A configuration that cannot be read does not say where the
    /// journals are, and must not be taken for permission.
    fn check_finished(&self, volume: &VolumeId) -> Result<(), Error> {
        let journals = Config::load(&self.config)?.state.dir;
        match journal::open_for(&journals, volume)?.filter(journal::Story::reserves_volumes) {
            Some(story) => Err(Error::Unfinished { volume: volume.clone(), id: story.head.id, name: story.head.name }),
            None => Ok(()),
        }
    }

    /// Refuses a volume that a domain of this host has, through our layer or straight.
    fn check_unused(&self, volume: &Volume) -> Result<(), Error> {
        let direct = users::direct_user(volume.device()).map_err(Error::Backends)?;
        let through_layer = match Layer::find(&volume.id)? {
            Some(layer) => users::user_in_xenstore(self.backend.nodes, layer.device(), self.backend.path)?,
            None => None,
        };
        let Some(user) = direct.or(through_layer) else {
            return Ok(());
        };
        Err(Error::Attached { volume: volume.id.clone(), user: self.describe(user)? })
    }

    /// Waits for the peer as far as the migration allows, and promotes.
    fn promote(&self, drbd: &mut Drbd, volume: &Volume, permission: Permission) -> Result<Change, Error> {
        let deadline = self.deadline(PROMOTE_WAIT_MAX);
        await_peer(drbd, volume, permission, deadline)?;
        let patience = match permission {
            Permission::Alone => Patience::RefuseAtOnce,
            Permission::Granted(_) => Patience::WaitForPeer,
        };
        match promote_with_retry(drbd, &volume.target(), patience, deadline) {
            // The peer was quicker than our look at it.
            Err(role::Error::PeerPrimary { .. }) if permission == Permission::Alone => Err(peer_primary(drbd, volume)),
            result => Ok(result?),
        }
    }

    /// Lays the layer and hands it to the backend, which opens it as soon as `physical-device` is there.
    fn attach(&self, volume: &Volume) -> Result<(), Error> {
        let layer = Layer::lay(&volume.id, volume.minor, volume.sectors)?;
        let announced = self.announce(&layer);
        announced.map_err(|error| undo_layer(&layer, error))
    }

    fn announce(&self, layer: &Layer) -> Result<(), Error> {
        self.backend.write("physical-device-path", &layer.path())?;
        self.backend.write("hotplug-status", "connected")?;
        Ok(self.backend.write("physical-device", &layer.device().to_hex())?)
    }

    /// Detaches the disk. Nothing happens when it was not attached by this program, or is detached already.
    ///
    /// # Errors
    /// libxl goes on all the same; the volume may stay Primary, and a later `add` takes over what is left.
    pub fn remove(&self) -> Result<(), Error> {
        let physical = self.backend.read("physical-device")?;
        let Some(device) = physical.as_deref().and_then(DeviceNumber::from_hex) else {
            return Ok(());
        };
        let (mut drbd, volume) = find(&self.attached_target(device)?)?;
        let _turn = self.lock(&volume.id.resource)?;
        self.detach(&volume, device)?;
        self.backend.rm("physical-device")?;
        self.demote(&mut drbd, &volume)
    }

    /// What was attached: as the layer tells, because the resource may have got a second volume since; else as was asked for.
    fn attached_target(&self, device: DeviceNumber) -> Result<String, Error> {
        match layer::volume_under(device) {
            Some(volume) => Ok(volume.to_string()),
            None => self.backend.read("params")?.ok_or(Error::NoTarget),
        }
    }

    /// Takes away the layer that this backend was given. Whoever does not close it keeps a device that leads nowhere, so
    /// that the volume is free all the same.
    fn detach(&self, volume: &Volume, device: DeviceNumber) -> Result<(), Error> {
        let Some(layer) = Layer::find(&volume.id)?.filter(|layer| layer.device() == device) else {
            return Ok(());
        };
        layer.release()?;
        match layer.remove(self.deadline(CLOSE_WAIT_MAX)) {
            Err(layer::Error::StillOpen { .. }) => Ok(layer.abandon(self.deadline(CLOSE_WAIT_MAX))?),
            result => Ok(result?),
        }
    }

    /// Makes the volume Secondary, unless it is already or a local user is left: on 8.4 of this volume, on 9 of any
    /// volume of the resource.
    fn demote(&self, drbd: &mut Drbd, volume: &Volume) -> Result<(), Error> {
        let Some(now) = volume.look_again(drbd)? else {
            return Ok(());
        };
        if !now.is_primary || in_use(&now, self.backend.domid)? {
            return Ok(());
        }
        demote_with_retry(drbd, &now.target(), self.deadline(DEMOTE_WAIT_MAX))?;
        Ok(())
    }

    /// One call at a time for each resource: on DRBD 9 its volumes share one role.
    fn lock(&self, resource: &str) -> Result<Flock<std::fs::File>, Error> {
        let path = admission::resource_lock(&self.dir, resource)?;
        let lock = admission::lock_file(&path, self.deadline(CALL_TIME_MAX))?;
        lock.ok_or_else(|| Error::Locked { resource: resource.to_owned() })
    }

    /// The end of a step that may take `limit`; never later than the end of the call.
    fn deadline(&self, limit: Duration) -> Instant {
        (Instant::now() + limit).min(self.started + CALL_TIME_MAX)
    }

    fn describe(&self, domid: DomId) -> Result<String, Error> {
        let name = domain_name(self.backend.nodes, domid)?;
        Ok(name.map_or_else(|| format!("domain {domid}"), |name| format!("domain {name} ({domid})")))
    }
}

fn find(target: &str) -> Result<(Drbd, Volume), Error> {
    let failed = |source| Error::Drbd { resource: target.to_owned(), source };
    let mut drbd = Drbd::open().map_err(failed)?;
    let volume = Volume::find(&mut drbd, target)?;
    Ok((drbd, volume))
}

/// Looks at the peer until the volume may become Primary. DRBD's own refusal is not enough: a configuration may permit
/// two Primaries for good, and a migration's single-primary handover must not have two even then.
fn await_peer(drbd: &mut Drbd, volume: &Volume, permission: Permission, deadline: Instant) -> Result<(), Error> {
    let mut look = volume.clone();
    let settled = poll_until(deadline, || match look.look_again(drbd) {
        Ok(Some(now)) => {
            look = now;
            verdict(&look, permission)
        }
        Ok(None) => Some(Err(volume.vanished())),
        Err(error) => Some(Err(error.into())),
    });
    settled.unwrap_or_else(|| Err(Error::NotReleased { volume: look.id.clone(), state: look.peers_in_words() }))
}

/// Go, refuse, or (`None`) wait.
fn verdict(now: &Volume, permission: Permission) -> Option<Result<(), Error>> {
    let primary = now.primary_peer();
    match permission {
        Permission::Alone => Some(
            primary.map_or(Ok(()), |peer| Err(Error::PeerPrimary { volume: now.id.clone(), peer: peer.to_owned() })),
        ),
        Permission::Granted(Handover::Dual) => now.is_connected().then_some(Ok(())),
        Permission::Granted(Handover::Single) => (now.is_connected() && primary.is_none()).then_some(Ok(())),
    }
}

/// Where the configuration permits two Primaries, two hosts may have promoted at the same moment. DRBD orders the two
/// changes, so that at least the second sees the first.
fn check_alone(drbd: &mut Drbd, volume: &Volume, permission: Permission) -> Result<(), Error> {
    if permission == Permission::Granted(Handover::Dual) {
        return Ok(());
    }
    match volume.look_again(drbd)? {
        Some(now) if now.primary_peer().is_none() => Ok(()),
        _ => Err(peer_primary(drbd, volume)),
    }
}

fn peer_primary(drbd: &mut Drbd, volume: &Volume) -> Error {
    let now = volume.look_again(drbd).ok().flatten();
    let peer = now.as_ref().and_then(Volume::primary_peer).unwrap_or("its peer");
    Error::PeerPrimary { volume: volume.id.clone(), peer: peer.to_owned() }
}

/// A promotion that was ours is taken back when the call fails after it.
fn undo_promotion(drbd: &mut Drbd, volume: &Volume, change: Change, error: Error) -> Error {
    if change == Change::Done {
        let undone = demote_with_retry(drbd, &volume.target(), Instant::now() + UNDO_WAIT_MAX);
        if let Err(stuck) = undone {
            tracing::error!(volume = %volume.id, error = %stuck, "volume left Primary");
        }
    }
    error
}

fn undo_layer(layer: &Layer, error: Error) -> Error {
    if let Err(stuck) = layer.remove(Instant::now() + UNDO_WAIT_MAX) {
        tracing::error!(volume = %layer.volume(), error = %stuck, "layer left behind");
    }
    error
}

/// Whether anything on this host, apart from the domain whose disk has been detached, still uses what a demotion would take away.
fn in_use(now: &Volume, detached_from: DomId) -> Result<bool, Error> {
    for (id, device) in &now.shares_role {
        let direct = users::direct_user(*device).map_err(Error::Backends)?;
        if direct.is_some_and(|user| user != detached_from) || Layer::find(id)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
