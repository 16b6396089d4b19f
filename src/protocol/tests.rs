use proptest::prelude::*;

use super::*;

fn hello(oldest: u16, newest: u16) -> Hello {
    Hello { oldest, newest, node: "node1".into(), program: "bascule 0.1.0".into() }
}

fn parse(frame: &[u8]) -> Result<Message, Error> {
    let header = Header::parse(frame[..HEADER_LEN].try_into().expect("eight bytes"))?;
    decode(header, &frame[HEADER_LEN..HEADER_LEN + header.len])
}

#[test]
fn messages_survive_the_wire() {
    let finding = Finding {
        code: "name-taken".into(),
        severity: Severity::Error,
        node: "node2".into(),
        found: "Domain vm0 exists".into(),
        remedy: "Destroy it".into(),
    };
    let messages: [Message; 4] = [
        hello(1, 1).into(),
        Answer { findings: vec![finding] }.into(),
        Stream {}.into(),
        Started { domid: 7, downtime_us: 300_000, start_us: 1_000 }.into(),
    ];
    for message in messages {
        let frame = encode(&message).expect("encodes");
        assert_eq!(parse(&frame).expect("parses"), message);
    }
}

#[test]
fn an_offer_of_a_source_that_knows_less_is_read() {
    let id = "0f6bd1e1-8c4a-4d0c-9a54-7c4e3c7f0c11";
    let volume = r#"{"resource":"r0","volume":0,"size_sectors":8,"generation":2}"#;
    let payload = format!(
        r#"{{"id":"{id}","name":"vm0","uuid":"{id}","config":"{{}}","memory_kib":1,"volumes":[{volume}],"handover":"single","check_only":true}}"#
    );
    let header = Header { kind: 3, len: payload.len() };
    let Message::Offer(offer) = decode(header, payload.as_bytes()).expect("parses") else { panic!("an offer") };
    assert_eq!((offer.disks, offer.settled_nics, offer.cpu, offer.xen), (vec![], vec![], None, None));
}

#[test]
fn a_disk_that_is_no_volume_says_what_it_is() {
    let backing = Backing { kind: crate::backing::Kind::File, size_bytes: 2048 };
    let disk = OfferedDisk { vdev: "xvdc".into(), path: "/srv/cd.iso".into(), usage: DiskUse::ReadOnly, backing };
    let json = r#"{"vdev":"xvdc","path":"/srv/cd.iso","usage":"read-only","kind":"file","size_bytes":2048}"#;
    assert_eq!(serde_json::to_string(&disk).expect("JSON"), json);
    assert_eq!(serde_json::from_str::<OfferedDisk>(json).expect("JSON"), disk);
}

#[test]
fn a_field_that_is_not_known_is_ignored() {
    let payload = br#"{"added_in_version_2":true}"#;
    let header = Header { kind: 11, len: payload.len() };
    assert_eq!(decode(header, payload).expect("parses"), Go {}.into());
}

#[test]
fn the_newest_common_version_is_chosen_and_strangers_are_refused() {
    assert_eq!(choose_version(&hello(1, 9)).expect("common"), VERSION);
    let refused = choose_version(&hello(VERSION + 1, VERSION + 2)).expect_err("none in common");
    assert!(refused.to_string().contains("node1"), "{refused}");
}

#[test]
fn a_header_is_refused_before_its_payload_is_allocated() {
    assert!(matches!(Header::parse([0, FRAMING, 0, 0, 0, 0, 0, 1]), Err(Error::Header(_))));
    assert!(matches!(Header::parse(*b"GET / HT"), Err(Error::Header(_))));
    assert!(matches!(Header::parse([1, FRAMING, 0, 0, 0xff, 0, 0, 0]), Err(Error::TooLong(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(header: [u8; HEADER_LEN], payload: Vec<u8>) {
        if let Ok(header) = Header::parse(header) {
            let _ = decode(header, &payload);
        }
    }
}
