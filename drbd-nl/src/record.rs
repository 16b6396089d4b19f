//! From one record of a dump or of the events to the node of the tree that it describes. What a record leaves out is empty or zero.

use crate::{
    ConnectionState, ConnectionStatus, Contents, DiskState, PathStatus, PeerDeviceStatus, ReplState, ResourceStatus,
    Role, Suspended, VolumeStatus, drbd::Record,
};

impl ResourceStatus {
    pub(crate) fn of(record: &Record) -> Option<ResourceStatus> {
        let info = record.contents.resource_info.clone().unwrap_or_default();
        Some(ResourceStatus {
            name: crate::join::name_of(record)?.to_owned(),
            role: info.role.unwrap_or(Role::Unknown),
            suspended: Suspended {
                user: info.susp.unwrap_or(false),
                no_data: info.susp_nod.unwrap_or(false),
                fencing: info.susp_fen.unwrap_or(false),
                quorum: info.susp_quorum.unwrap_or(false),
                fail_io: info.fail_io.unwrap_or(false),
            },
            options: record.contents.resource_opts.clone().unwrap_or_default(),
            volumes: Vec::new(),
            connections: Vec::new(),
        })
    }
}

impl VolumeStatus {
    pub(crate) fn of(record: &Record) -> Option<VolumeStatus> {
        let Contents { context, disk_conf, device_conf, device_info, device_statistics, .. } = record.contents.clone();
        let (info, statistics) = (device_info.unwrap_or_default(), device_statistics.unwrap_or_default());
        let disk = disk_conf.unwrap_or_default();
        let path = info.backing_dev_path.filter(|path| path != "none");
        Some(VolumeStatus {
            volume: context?.volume?,
            minor: record.minor,
            role: None,
            disk_state: info.disk_state.unwrap_or(DiskState::Diskless),
            backing_dev: path.or_else(|| disk.backing_dev.clone()),
            disk,
            conf: device_conf.unwrap_or_default(),
            size_sectors: statistics.size.unwrap_or(0),
            read_sectors: statistics.read.unwrap_or(0),
            written_sectors: statistics.write.unwrap_or(0),
            al_writes: statistics.al_writes.unwrap_or(0),
            bm_writes: statistics.bm_writes.unwrap_or(0),
            upper_pending: statistics.upper_pending.unwrap_or(0),
            lower_pending: statistics.lower_pending.unwrap_or(0),
            upper_blocked: statistics.upper_blocked.unwrap_or(false),
            lower_blocked: statistics.lower_blocked.unwrap_or(false),
            current_uuid: statistics.current_uuid.unwrap_or(0),
            history_uuids: statistics.history_uuids.unwrap_or_default(),
            out_of_sync_sectors: None,
            sent_sectors: None,
            received_sectors: None,
            is_open: info.is_open,
            has_quorum: info.has_quorum,
            is_intentional_diskless: info.is_intentional_diskless,
        })
    }
}

impl ConnectionStatus {
    pub(crate) fn of(contents: &Contents) -> ConnectionStatus {
        let Contents { context, net_conf, connection_info, connection_statistics, path_parms, .. } = contents.clone();
        let path = path_parms.unwrap_or_default(); // 9 has the addresses here
        let (context, net) = (context.unwrap_or_default(), net_conf.unwrap_or_default());
        let (info, statistics) = (connection_info.unwrap_or_default(), connection_statistics.unwrap_or_default());
        ConnectionStatus {
            name: context.conn_name.or_else(|| net.name.clone()),
            peer_node_id: context.peer_node_id,
            state: info.state.unwrap_or(ConnectionState::StandAlone),
            peer_role: info.role.unwrap_or(Role::Unknown),
            my_addr: context.my_addr.or(path.my_addr).unwrap_or_default(),
            peer_addr: context.peer_addr.or(path.peer_addr).unwrap_or_default(),
            net,
            peer_devices: Vec::new(),
            paths: Vec::new(),
            congested: statistics.congested.unwrap_or(false),
            in_flight_sectors: statistics.ap_in_flight,
            resync_in_flight_sectors: statistics.rs_in_flight,
        }
    }
}

impl PathStatus {
    pub(crate) fn of(contents: &Contents) -> PathStatus {
        let context = contents.context.clone().unwrap_or_default();
        PathStatus {
            my_addr: context.my_addr.unwrap_or_default(),
            peer_addr: context.peer_addr.unwrap_or_default(),
            established: contents.path_info.as_ref().and_then(|info| info.path_established).unwrap_or(false),
        }
    }
}

impl PeerDeviceStatus {
    pub(crate) fn of(contents: &Contents) -> Option<PeerDeviceStatus> {
        let info = contents.peer_device_info.clone().unwrap_or_default();
        let statistics = contents.peer_device_statistics.clone().unwrap_or_default();
        let repl_state = info.repl_state.unwrap_or(ReplState::Off);
        let held =
            [info.resync_susp_user, info.resync_susp_peer, info.resync_susp_dependency, info.resync_susp_max_parallel];
        Some(PeerDeviceStatus {
            volume: contents.context.as_ref()?.volume?,
            repl_state,
            peer_disk_state: info.disk_state.unwrap_or(DiskState::DUnknown),
            received_sectors: statistics.received.unwrap_or(0),
            sent_sectors: statistics.sent.unwrap_or(0),
            pending: statistics.pending.unwrap_or(0),
            unacked: statistics.unacked.unwrap_or(0),
            out_of_sync_sectors: statistics.out_of_sync.unwrap_or(0),
            resync_failed_sectors: statistics.resync_failed.unwrap_or(0),
            resync_done: statistics.resync_done().filter(|_| repl_state.is_resync()),
            resync_suspended: held.into_iter().flatten().any(|held| held != 0),
            bitmap_uuid: statistics.bitmap_uuid.unwrap_or(0),
        })
    }
}
