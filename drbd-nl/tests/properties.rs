//! What is built comes back from the wire as it was, in both dialects.

use drbd_nl::{
    Address, CfgContext, CfgReply, Command, ConnectionInfo, ConnectionState, Contents, DeviceInfo, DeviceStatistics,
    Dialect, DiskConf, DiskState, NetConf, Packet, PeerDeviceInfo, Protocol, ReplState, ResourceInfo, Role, Secret,
    wire::{self, Attr, Message},
};
use proptest::{option::of, prelude::*};

fn dialects() -> impl Strategy<Value = Dialect> {
    prop_oneof![Just(Dialect::V84), Just(Dialect::V9)]
}

/// Text that survives a NUL-terminated string.
fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,40}"
}

fn contexts() -> impl Strategy<Value = CfgContext> {
    let address = || of(proptest::collection::vec(any::<u8>(), 0..128).prop_map(Address::from_bytes));
    (of(any::<u32>()), of(text()), address(), address(), of(text()), of(any::<u32>())).prop_map(
        |(volume, resource_name, my_addr, peer_addr, conn_name, peer_node_id)| CfgContext {
            volume,
            resource_name,
            my_addr,
            peer_addr,
            conn_name,
            peer_node_id,
            other: vec![],
        },
    )
}

fn net_confs() -> impl Strategy<Value = NetConf> {
    let unknown = proptest::collection::vec((100u16..200, proptest::collection::vec(any::<u8>(), 0..20)), 0..3);
    (of(text()), of(0u32..6), of(any::<bool>()), of(any::<i32>()), of(text()), unknown).prop_map(
        |(secret, protocol, two_primaries, tls_keyring, name, unknown)| NetConf {
            shared_secret: secret.map(Secret::new),
            wire_protocol: protocol.map(|number| Protocol::from_number(number, Dialect::V9)),
            two_primaries,
            tls_keyring,
            name,
            other: unknown.into_iter().map(|(kind, value)| Attr { kind, value }).collect(),
            ..NetConf::default()
        },
    )
}

/// Numbers beyond the known ones too.
fn states(dialect: Dialect) -> impl Strategy<Value = Contents> {
    (of(0u32..30), of(0u32..30), of(0u32..40), of(0u32..5), proptest::collection::vec(any::<u64>(), 0..5)).prop_map(
        move |(disk, connection, repl, role, history_uuids)| {
            let role = role.map(|number| Role::from_number(number, dialect));
            let disk_state = disk.map(|number| DiskState::from_number(number, dialect));
            let state = connection.map(|number| ConnectionState::from_number(number, dialect));
            let repl_state = repl.map(|number| ReplState::from_number(number, dialect));
            Contents {
                resource_info: Some(ResourceInfo { role, ..ResourceInfo::default() }),
                device_info: Some(DeviceInfo { disk_state, ..DeviceInfo::default() }),
                device_statistics: Some(DeviceStatistics {
                    history_uuids: Some(history_uuids),
                    ..DeviceStatistics::default()
                }),
                connection_info: Some(ConnectionInfo { state, role, ..ConnectionInfo::default() }),
                peer_device_info: Some(PeerDeviceInfo { repl_state, disk_state, ..PeerDeviceInfo::default() }),
                ..Contents::default()
            }
        },
    )
}

fn contents() -> impl Strategy<Value = (Dialect, Contents)> {
    dialects().prop_flat_map(|dialect| {
        let reply = of(proptest::collection::vec(text(), 0..4));
        (states(dialect), of(contexts()), of(net_confs()), reply, of(text())).prop_map(
            move |(states, context, net_conf, reply, backing_dev)| {
                let reply = reply.map(|info_text| CfgReply { info_text, other: vec![] });
                let disk_conf = Some(DiskConf { backing_dev, meta_dev_idx: Some(-3), ..DiskConf::default() });
                (dialect, Contents { context, net_conf, reply, disk_conf, ..states })
            },
        )
    })
}

proptest! {
    #[test]
    fn contents_come_back((dialect, contents) in contents(), command in any::<u8>(), minor in any::<u32>()) {
        let packet = Packet::request(Command(command), minor, &contents, dialect);
        let parsed = Packet::parse(&packet.emit()).unwrap();
        prop_assert_eq!(&parsed, &packet);
        prop_assert_eq!(parsed.contents(dialect).unwrap(), contents);
    }

    #[test]
    fn messages_come_back(parts in proptest::collection::vec(
        (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..5
    )) {
        let sent: Vec<Message> = parts
            .into_iter()
            .map(|(kind, flags, sequence, port, payload)| Message { kind, flags, sequence, port, payload })
            .collect();
        let bytes: Vec<u8> = sent.iter().flat_map(Message::emit).collect();
        let received: Vec<Message> = wire::messages(&bytes).map(Result::unwrap).collect();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn a_secret_never_shows(secret in "[a-zA-Z]{12,60}") {
        let net_conf = Some(NetConf { shared_secret: Some(Secret::new(secret.clone())), ..NetConf::default() });
        let contents = Contents { net_conf, ..Contents::default() };
        let packet = Packet::request(Command::NEW_PEER, 0, &contents, Dialect::V9);
        let shown = format!("{contents:?} {packet:?}");
        prop_assert!(!shown.contains(&secret));
    }
}
