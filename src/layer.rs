//! The device-mapper layer over one DRBD volume: what a domain's block backend really opens.
//!
//! The layer lets a suspended domain's disk be taken away from it and given back without the backend or the domain
//! noticing (the design's single-primary handover). Its states and what leads from one to the other:
//!
//! ```text
//! lay ──> laid (linear, live) ──withdraw──> withdrawn (error, suspended) ──give_back──> laid
//!                    │                               │
//!                    │                            release
//!                    │                               v
//!                    └────────remove──────> gone <──remove── released (error, live)
//! ```
//!
//! A withdrawn layer has let go of the DRBD device, so that it can be made Secondary, and holds back whatever request
//! might still come. Each operation starts from what the kernel shows, not from what this process did before: called
//! again after a crash, it completes what was begun.
//!
//! Invariant: the `error` table never meets a request of a domain that will run on. [`Layer::withdraw`] refuses while
//! requests are under way; that the domain is suspended and its backend idle is the caller's part.

mod error;

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;

pub use self::error::Error;
use crate::dm::{self, DeviceMapper, DeviceNumber, Info, Table, Target};
use crate::holders;
use crate::ids::{Minor, VolumeId};
use crate::wait::{poll_until, retry_until};

/// What the names of our devices begin with.
const NAME_PREFIX: &str = "bascule-";
/// What the names of devices begin with that a user did not close; no volume's name does.
const ASIDE_PREFIX: &str = "bascule.gone-";
/// What the uuids of our devices begin with, so that other tools can tell whose they are.
const UUID_PREFIX: &str = "BASCULE-";

/// How long a layer that should have no user may be open.
const STALE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The layer over one volume.
#[derive(Debug)]
pub struct Layer {
    dm: DeviceMapper,
    volume: VolumeId,
    name: String,
    device: DeviceNumber,
}

/// Where a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Requests go to the DRBD device.
    Laid,
    /// The DRBD device is held, requests are held back: a withdrawal or a return that was interrupted.
    Held,
    /// The DRBD device is let go, requests are held back.
    Withdrawn,
    /// The DRBD device is let go, requests fail.
    Released,
}

impl Layer {
    /// Lays a new layer over the volume's DRBD device, which must be Primary. `sectors`: its size, in sectors of 512 bytes.
    ///
    /// A layer that nobody has open is left over from something that died, and is replaced. The caller must hold whatever
    /// keeps others from laying at the same time.
    ///
    /// # Errors
    /// [`Error::Attached`] when the volume has a layer that is open; [`Error::Claimed`] when the DRBD device is mounted or
    /// stacked under something else.
    pub fn lay(volume: &VolumeId, minor: Minor, sectors: u64) -> Result<Self, Error> {
        let dm = DeviceMapper::open().map_err(error_of(volume))?;
        let name = name_of(volume);
        clear_stale(&dm, volume, &name)?;
        let uuid = format!("{UUID_PREFIX}{}", uuid::Uuid::new_v4());
        let info = dm.create(&name, &uuid).map_err(error_of(volume))?;
        let layer = Self { dm, volume: volume.clone(), name, device: info.device };
        match layer.point_at(minor, sectors) {
            Ok(()) => Ok(layer),
            Err(error) => Err(layer.take_back_creation(error)),
        }
    }

    /// Undoes the creation of a layer whose table could not be loaded.
    fn take_back_creation(&self, error: Error) -> Error {
        if let Err(leftover) = self.dm.remove(&self.name) {
            tracing::warn!(volume = %self.volume, error = %leftover, "empty layer left behind");
        }
        error
    }

    /// The layer over a volume, if there is one.
    ///
    /// # Errors
    /// [`Error::Dm`]; not when device-mapper is not loaded: then there is no layer.
    pub fn find(volume: &VolumeId) -> Result<Option<Self>, Error> {
        let dm = match DeviceMapper::open() {
            Err(dm::Error::NotLoaded(_)) => return Ok(None),
            opened => opened.map_err(error_of(volume))?,
        };
        let name = name_of(volume);
        let info = dm.info(&name).map_err(error_of(volume))?;
        Ok(info.map(|info| Self { dm, volume: volume.clone(), name, device: info.device }))
    }

    /// Takes the volume away from whoever has the layer open: the DRBD device is let go, later requests wait.
    ///
    /// The caller has seen to it that nobody sends requests (the domain is suspended, its backend is idle).
    ///
    /// # Errors
    /// [`Error::NotIdle`] when requests are under way until `deadline`; then, as after any error, the layer is laid as before.
    pub fn withdraw(&self, deadline: Instant) -> Result<(), Error> {
        if self.state()? == State::Withdrawn {
            return Ok(());
        }
        self.wait_idle(deadline)?;
        self.dm(DeviceMapper::suspend)?;
        if let Err(error) = self.let_go() {
            return Err(self.undo_withdraw(error));
        }
        self.dm(DeviceMapper::suspend)
    }

    /// Swaps in the `error` table; after the swap the kernel closes the DRBD device.
    fn let_go(&self) -> Result<(), Error> {
        let sectors = self.table()?.map_or(1, |table| table.sectors);
        let nowhere = Table { sectors, target: Target::Error };
        self.dm(|dm, name| dm.load(name, &nowhere))?;
        self.dm(DeviceMapper::resume)
    }

    /// A swap that failed leaves the old table in place; let its requests flow again.
    fn undo_withdraw(&self, error: Error) -> Error {
        if let Err(stuck) = self.dm(DeviceMapper::resume) {
            tracing::error!(volume = %self.volume, error = %stuck, "layer left suspended");
        }
        error
    }

    /// Gives the volume back: the DRBD device, which must be Primary again, is opened, and requests that waited go on.
    ///
    /// # Errors
    /// What device-mapper says; requests then wait on.
    pub fn give_back(&self, minor: Minor, sectors: u64) -> Result<(), Error> {
        if self.state()? == State::Laid {
            return Ok(());
        }
        // From `released` too, requests wait until the table has been swapped.
        self.dm(DeviceMapper::suspend)?;
        self.point_at(minor, sectors)
    }

    /// Lets the requests of a withdrawn layer fail instead of waiting, so that a domain that will be destroyed can be: a
    /// backend that waits for a request cannot close. A layer that is laid stays as it is.
    ///
    /// # Errors
    /// [`Error::Dm`].
    pub fn release(&self) -> Result<(), Error> {
        match self.state()? {
            State::Laid | State::Released => Ok(()),
            State::Withdrawn => self.dm(DeviceMapper::resume),
            State::Held => self.let_go(),
        }
    }

    /// Removes the layer, waiting until its last user has closed it.
    ///
    /// # Errors
    /// [`Error::StillOpen`] at `deadline`.
    pub fn remove(&self, deadline: Instant) -> Result<(), Error> {
        let removed = poll_until(deadline, || match self.dm.remove(&self.name) {
            Err(error) if error.errno() == Some(Errno::EBUSY) => None,
            result => Some(result),
        });
        match removed {
            Some(result) => result.map_err(error_of(&self.volume)),
            None => Err(self.still_open()),
        }
    }

    /// Removes a layer that nobody has open: the rest of something that died. One that stays open, longer than udev looks into a
    /// device, is left as it is.
    ///
    /// # Errors
    /// [`Error::Dm`].
    pub fn remove_unused(&self, deadline: Instant) -> Result<(), Error> {
        match self.remove(deadline.min(Instant::now() + STALE_WAIT_MAX)) {
            Ok(()) | Err(Error::StillOpen { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives up on a user that does not close a layer whose domain is gone: the DRBD device is let go all the same, the
    /// layer moves out of the name's way and disappears when that user closes it.
    ///
    /// # Errors
    /// [`Error::NotIdle`] when DRBD still has requests of it at `deadline`: then its device cannot be let go.
    pub fn abandon(self, deadline: Instant) -> Result<(), Error> {
        match self.move_aside(deadline) {
            // It was closed after all, and is gone.
            Err(Error::Gone { .. }) => Ok(()),
            Err(Error::Dm { source, .. }) if source.errno() == Some(Errno::ENXIO) => Ok(()),
            result => result,
        }
    }

    fn move_aside(&self, deadline: Instant) -> Result<(), Error> {
        self.dm(DeviceMapper::remove_when_closed)?;
        if self.state()? == State::Laid {
            self.wait_idle(deadline)?;
            self.dm(DeviceMapper::suspend)?;
            self.let_go()?;
        }
        self.release()?;
        let aside = format!("{ASIDE_PREFIX}{}", self.device.minor);
        self.dm(|dm, name| dm.rename(name, &aside))
    }

    /// The layer's own device, which a backend opens.
    #[must_use]
    pub fn device(&self) -> DeviceNumber {
        self.device
    }

    /// The node of [`Self::device`], as devtmpfs makes it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/dev/dm-{}", self.device.minor)
    }

    /// The volume that it lies over.
    #[must_use]
    pub fn volume(&self) -> &VolumeId {
        &self.volume
    }

    /// Where the layer stands, as the kernel shows it.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn state(&self) -> Result<State, Error> {
        let info = self.info()?;
        let holds = matches!(self.table()?, Some(Table { target: Target::Linear(_), .. }));
        Ok(match (holds, info.suspended) {
            (true, false) => State::Laid,
            (true, true) => State::Held,
            (false, true) => State::Withdrawn,
            (false, false) => State::Released,
        })
    }

    /// How often the layer is open.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn open_count(&self) -> Result<u32, Error> {
        self.info().map(|info| info.open_count)
    }

    /// Requests that were sent down and have not ended. Requests that are held back do not count.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.device.in_flight()
    }

    fn wait_idle(&self, deadline: Instant) -> Result<(), Error> {
        let idle = poll_until(deadline, || (self.in_flight() == 0).then_some(()));
        idle.ok_or_else(|| Error::NotIdle { volume: self.volume.clone(), in_flight: self.in_flight() })
    }

    /// Loads the linear table and makes it the live one.
    fn point_at(&self, minor: Minor, sectors: u64) -> Result<(), Error> {
        let below = DeviceNumber::drbd(minor);
        let table = Table { sectors, target: Target::Linear(below) };
        match self.dm.load(&self.name, &table) {
            Err(error) if error.errno() == Some(Errno::EBUSY) => {
                Err(Error::Claimed { volume: self.volume.clone(), device: below, holders: holders::holders(below) })
            }
            result => result.map_err(error_of(&self.volume)),
        }?;
        self.dm(DeviceMapper::resume)
    }

    fn still_open(&self) -> Error {
        Error::StillOpen {
            volume: self.volume.clone(),
            open_count: self.open_count().unwrap_or_default(),
            holders: holders::holders(self.device),
        }
    }

    fn info(&self) -> Result<Info, Error> {
        let info = self.dm.info(&self.name).map_err(error_of(&self.volume))?;
        info.ok_or_else(|| Error::Gone { volume: self.volume.clone() })
    }

    fn table(&self) -> Result<Option<Table>, Error> {
        self.dm.table(&self.name).map_err(error_of(&self.volume))
    }

    fn dm<T>(&self, run: impl FnOnce(&DeviceMapper, &str) -> Result<T, dm::Error>) -> Result<T, Error> {
        run(&self.dm, &self.name).map_err(error_of(&self.volume))
    }
}

/// Removes a layer that nobody has open, or is about to close: udev looks into a new device for a moment.
fn clear_stale(dm: &DeviceMapper, volume: &VolumeId, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + STALE_WAIT_MAX;
    let look = || dm.info(name);
    let info = retry_until(deadline, look, |info| !matches!(info, Ok(Some(info)) if info.open_count > 0));
    let Some(info) = info.map_err(error_of(volume))? else {
        return Ok(());
    };
    if info.open_count > 0 {
        let holders = holders::holders(info.device);
        return Err(Error::Attached { volume: volume.clone(), open_count: info.open_count, holders });
    }
    tracing::warn!(%volume, "stale layer replaced");
    dm.remove(name).map_err(error_of(volume))
}

/// The volume whose layer is this device, or `None` when it is no layer of ours.
#[must_use]
pub fn volume_under(device: DeviceNumber) -> Option<VolumeId> {
    let name = fs::read_to_string(format!("/sys/dev/block/{device}/dm/name")).ok()?;
    volume_of(name.trim_end())
}

fn volume_of(name: &str) -> Option<VolumeId> {
    let (resource, volume) = name.strip_prefix(NAME_PREFIX)?.rsplit_once('-')?;
    Some(VolumeId { resource: resource.to_owned(), volume: volume.parse().ok()? })
}

/// A volume's number follows the last dash, so that no two volumes share a name.
fn name_of(volume: &VolumeId) -> String {
    format!("{NAME_PREFIX}{}-{}", volume.resource, volume.volume)
}

fn error_of(volume: &VolumeId) -> impl FnOnce(dm::Error) -> Error + use<> {
    let volume = volume.clone();
    |source| Error::Dm { volume, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_s_name_tells_its_volume() {
        for (resource, volume) in [("r0", 0), ("vm.disk-1", 12), ("a-1-2", 3)] {
            let id = VolumeId { resource: resource.to_owned(), volume };
            assert_eq!(volume_of(&name_of(&id)), Some(id));
        }
        assert_eq!(volume_of("bascule.gone-3"), None);
        assert_eq!(volume_of("vg-root"), None);
    }
}
