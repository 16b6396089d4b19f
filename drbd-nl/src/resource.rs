//! Resources: their options, state, roles, and their life from `new_resource` to `down`.

use crate::{Change, Command, Contents, Dialect, Drbd, Error, Role, Target, drbd::Request, nest::nest};

nest! {
    /// `RESOURCE_OPTS` (4).
    ResourceOpts {
        /// CPUs of DRBD's threads, as a hexadecimal mask.
        1 cpu_mask: String,
        /// When no good data is reachable: 0 I/O errors, 1 suspend.
        2 on_no_data: u32,
        /// Opening a device for writing promotes (9).
        3 auto_promote: bool,
        /// This host's node id, required with `new_resource` (9).
        4 node_id: u32,
        /// Bytes after which peers are told what is on disk everywhere (9).
        5 peer_ack_window: u32,
        /// Timeout of a cluster-wide state change, 0.1 s (9).
        6 twopc_timeout: u32,
        /// Pause before it is tried again, 0.1 s (9).
        7 twopc_retry_timeout: u32,
        /// Idle time after which peers are told what is on disk everywhere, ms (9).
        8 peer_ack_delay: u32,
        /// How long opening a device waits for a promotion, 0.1 s (9).
        9 auto_promote_timeout: u32,
        /// Size of the request pool (9).
        10 nr_requests: u32,
        /// Nodes needed to write (9).
        11 quorum: i32,
        /// Without quorum: 0 I/O errors, 1 suspend (9).
        12 on_no_quorum: u32,
        /// Copies needed to write (9).
        13 quorum_min_redundancy: i32,
        /// What a suspended Primary with old data does (9).
        14 on_susp_primary_outdated: u32,
        /// Speaks as 8.4 does (9.3).
        15 drbd8_compat_mode: bool,
        /// That was asked for (9.3).
        16 explicit_drbd8_compat: bool,
    }
}

nest! {
    /// `RESOURCE_INFO` (15): the state of a resource.
    ResourceInfo {
        /// `res_role`. On 8.4 the highest role of its minors.
        1 role: Role,
        /// `res_susp`: I/O is suspended by the user.
        2 susp: bool,
        /// `res_susp_nod`: I/O is suspended for lack of data.
        3 susp_nod: bool,
        /// `res_susp_fen`: I/O is suspended while a peer is fenced.
        4 susp_fen: bool,
        /// `res_susp_quorum`: I/O is suspended for lack of quorum (9).
        5 susp_quorum: bool,
        /// `res_fail_io`: I/O fails until all openers have closed (9.1).
        6 fail_io: bool,
    }
}

nest! {
    /// `RESOURCE_STATISTICS` (19).
    ResourceStatistics {
        /// How write order is kept: 0 none, 1 drain, 2 flush, 3 barrier.
        1 write_ordering: u32,
    }
}

nest! {
    /// `SET_ROLE_PARMS` (6).
    SetRoleParms {
        /// With PRIMARY: the local data counts as UpToDate (`assume_uptodate` of 8.4 and 9.0). With SECONDARY (9.1): openers get I/O errors.
        1 force: bool,
    }
}

nest! {
    /// `RENAME_RESOURCE_PARMS` (31).
    RenameResourceParms {
        /// The new name.
        1 new_resource_name: String,
    }
}

nest! {
    /// `RENAME_RESOURCE_INFO` (32).
    RenameResourceInfo {
        /// The new name.
        1 res_new_name: String,
    }
}

impl Drbd {
    /// Makes `volume` Primary. On 8.4 that concerns this minor alone, so a resource of several volumes takes one call each,
    /// and the caller rolls back when a later one is refused; on 9 it concerns the whole resource at once.
    ///
    /// `force` declares local data UpToDate that is not known to be: never in a migration.
    ///
    /// # Errors
    ///
    /// Among the refusals [`crate::Refusal::TwoPrimaries`], [`crate::Refusal::NoUpToDateDisk`], and those where
    /// [`crate::Refusal::is_transient`] says that another attempt can succeed.
    pub fn primary(&mut self, volume: &Target, force: bool) -> Result<Change, Error> {
        let request = set_role(self.dialect(), Command::PRIMARY, volume, force)?;
        self.change(&request)
    }

    /// Makes `volume` Secondary; same reach as [`Drbd::primary`].
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::DeviceInUse`] while somebody holds the device open. blkback closes a moment after its domain is gone.
    pub fn secondary(&mut self, volume: &Target) -> Result<Change, Error> {
        let request = set_role(self.dialect(), Command::SECONDARY, volume, false)?;
        self.change(&request)
    }

    /// Makes a resource without volumes and connections. DRBD 9 needs `options.node_id`.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::AlreadyExists`] from DRBD 9; 8.4 says nothing when the resource is there already.
    pub fn new_resource(&mut self, name: &str, options: &ResourceOpts) -> Result<(), Error> {
        self.with_options(Command::NEW_RESOURCE, name, options)
    }

    /// Changes the options that are given; the others stay.
    ///
    /// # Errors
    ///
    /// Refusals name the option.
    pub fn resource_options(&mut self, name: &str, options: &ResourceOpts) -> Result<(), Error> {
        self.with_options(Command::RESOURCE_OPTS, name, options)
    }

    fn with_options(&mut self, command: Command, name: &str, options: &ResourceOpts) -> Result<(), Error> {
        let mut request = Request::of_resource(command, name)?;
        request.contents.resource_opts = (*options != ResourceOpts::default()).then(|| options.clone());
        self.command(&request)
    }

    /// Removes a resource that has no volumes and no connections.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::ResourceInUse`] while it has.
    pub fn del_resource(&mut self, name: &str) -> Result<(), Error> {
        self.command(&Request::of_resource(Command::DEL_RESOURCE, name)?)
    }

    /// Demotes, disconnects, detaches and removes a resource with all that belongs to it.
    ///
    /// # Errors
    ///
    /// [`crate::Refusal::DeviceInUse`] while a volume is open.
    pub fn down(&mut self, name: &str) -> Result<(), Error> {
        self.command(&Request::of_resource(Command::DOWN, name)?)
    }

    /// Renames a resource on this host (DRBD 9.1 and later).
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4.
    pub fn rename_resource(&mut self, name: &str, new_name: &str) -> Result<(), Error> {
        let mut request = Request::of_resource(Command::RENAME_RESOURCE, name)?;
        let parms = RenameResourceParms { new_resource_name: Some(new_name.to_owned()), ..Default::default() };
        request.contents.rename_resource_parms = Some(parms);
        self.only_in(Dialect::V9, Command::RENAME_RESOURCE)?;
        self.command(&request)
    }
}

/// 8.4 looks at the minor only, 9 at the resource only.
fn set_role(dialect: Dialect, command: Command, volume: &Target, force: bool) -> Result<Request, Error> {
    let parms = SetRoleParms { force: force.then_some(true), ..SetRoleParms::default() };
    let mut request = match dialect {
        Dialect::V84 => Request::of_volume(command, volume),
        Dialect::V9 => Request::of_resource(command, &volume.resource)?,
    };
    request.contents =
        Contents { set_role_parms: (dialect == Dialect::V9 || force).then_some(parms), ..request.contents };
    Ok(request)
}
