//! `bascule drbd up` and `down` on the real DRBD: as the files say, or not at all.

use std::path::Path;
use std::time::Duration;

use bascule::drbd::bring::{self, Error};
use bascule::drbd::review::{Now, Seen, review};
use bascule::journal::Journal;
use drbd_conf::{Config, Memory, Node, read};
use drbd_nl::Refusal;

use super::block::head;
use super::pair::{self, ENDS, Pair, VOLUMES, create_metadata, disk, minor};

const PORTS: [[u16; 2]; 2] = [[7701, 7702], [7702, 7701]];
const HERE: &str = "here";

/// The files of one end: its own address first, and options of each kind.
fn files(end: usize, ports: [u16; 2]) -> Config {
    let volumes = VOLUMES.map(|volume| {
        let minor = minor(u32::try_from(end).unwrap(), volume);
        format!("volume {volume} {{ device minor {minor}; disk {}; meta-disk internal; }}\n", disk(minor))
    });
    let text = format!(
        "resource {} {{
          net {{ protocol C; cram-hmac-alg sha1; shared-secret \"open sesame\"; ping-int 1; connect-int 1; timeout 50; no-tcp-cork;
                 after-sb-0pri discard-zero-changes; max-buffers 4K; congestion-fill 0; ko-count 3; sndbuf-size 512K; }}
          disk {{ on-io-error pass_on; resync-rate 4M; c-plan-ahead 0; disk-flushes no; al-extents 67; }}
          options {{ on-no-data-accessible suspend-io; }}
          {}
          on {HERE} {{ address 127.0.0.1:{}; }}
          on there {{ address 127.0.0.1:{}; }}
        }}",
        ENDS[end],
        volumes.concat(),
        ports[0],
        ports[1],
    );
    let node = Node { name: HERE.into(), addresses: Vec::new() };
    read(Path::new("drbd.conf"), &node, &Memory::one("drbd.conf", text)).unwrap()
}

fn up(pair: &mut Pair, end: usize, ports: [u16; 2]) -> Result<(), Error> {
    bring::up(&mut pair.drbd, &files(end, ports), ENDS[end], HERE)
}

fn both_up(pair: &mut Pair) {
    (0..4).for_each(create_metadata);
    (0..2).for_each(|end| up(pair, end, PORTS[end]).unwrap());
}

/// The pair's disks with metadata, and no resource.
fn bare(state: &Path) -> Pair {
    let mut pair = Pair::attached();
    ENDS.iter().for_each(|name| bring::down(&mut pair.drbd, name, state).unwrap());
    assert!(pair.drbd.status().unwrap().is_empty());
    pair
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn what_is_brought_up_is_as_the_files_say() {
    let state = tempfile::tempdir().unwrap();
    let mut pair = bare(state.path());
    both_up(&mut pair);
    let ends = pair.wait("the connection", |ends| ends.iter().all(pair::is_connected));
    let dialect = pair.drbd.dialect();
    for (end, status) in ends.iter().enumerate() {
        let (files, kernel) = (files(end, PORTS[end]), [Now::from(status)]);
        let seen =
            Seen { files: Ok(Some(&files)), kernel: Some((&kernel, dialect)), migrating: &[], node: HERE, uname: HERE };
        assert_eq!(review(&seen), []);
    }
    let again = up(&mut pair, 0, PORTS[0]).unwrap_err();
    assert!(matches!(&again, Error::Refused { reasons, .. } if reasons[0].contains("up already")), "{again}");
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn a_step_that_fails_leaves_nothing_behind() {
    let state = tempfile::tempdir().unwrap();
    let mut pair = bare(state.path());
    // 8.4 wants the activity log of metadata that were in use replayed first.
    let unclean = up(&mut pair, 0, PORTS[0]).unwrap_err();
    assert_failed(&unclean, "attaching", Refusal::MetadataUnclean);
    assert!(pair.drbd.status().unwrap().is_empty());
    (0..4).for_each(create_metadata);
    up(&mut pair, 0, PORTS[0]).unwrap();
    let clash = up(&mut pair, 1, PORTS[0]).unwrap_err();
    assert_failed(&clash, "connecting", Refusal::LocalAddressInUse);
    assert_eq!(pair.drbd.status().unwrap().len(), 1);
    [1, 3].into_iter().for_each(create_metadata);
    up(&mut pair, 1, PORTS[1]).unwrap();
}

fn assert_failed(error: &Error, wanted: &str, why: Refusal) {
    let Error::Failed { step, undone, source, .. } = error else { panic!("{error:?}") };
    let drbd_nl::Error::Refused { refusal, .. } = &**source else { panic!("{error:?}") };
    assert!(step.contains(wanted) && undone.contains("is undone") && *refusal == why, "{error:?}");
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn what_is_needed_stays_up() {
    let state = tempfile::tempdir().unwrap();
    let mut pair = Pair::connected();
    pair.promote(0).unwrap();
    let open = pair::open(0, 0);
    let refused = bring::down(&mut pair.drbd, ENDS[0], state.path()).unwrap_err();
    assert!(matches!(&refused, Error::Refused { reasons, .. } if reasons[0].contains("in use by")), "{refused}");
    drop(open);
    pair.demote(0).unwrap();
    drop(Journal::create(state.path(), head()).unwrap());
    let refused = bring::down(&mut pair.drbd, ENDS[0], state.path()).unwrap_err();
    assert!(matches!(&refused, Error::Refused { reasons, .. } if reasons[0].contains("migration")), "{refused}");
    assert_eq!(pair.drbd.status().unwrap().len(), 2);
}

#[test]
#[ignore = "needs the real modules: cargo xtask test"]
fn what_is_just_connecting_comes_down() {
    let state = tempfile::tempdir().unwrap();
    let mut pair = bare(state.path());
    // Each time a little later into the connection's making; at several of these points 8.4 refuses to end it.
    for pause in (0..60).step_by(5).map(Duration::from_millis) {
        both_up(&mut pair);
        std::thread::sleep(pause);
        ENDS.iter().for_each(|name| bring::down(&mut pair.drbd, name, state.path()).unwrap());
        assert!(pair.drbd.status().unwrap().is_empty());
    }
    both_up(&mut pair);
}
