//! Against a xenstore daemon; `xenstored` alone is enough, without Xen.

use super::*;
use std::time::Duration;

/// A connection, and a node of the test's own, empty.
fn open(test: &str) -> (Xenstore, String) {
    let (xenstore, root) = (Xenstore::open().expect("a xenstore daemon"), format!("/bascule-test-{test}"));
    xenstore.rm(&root).expect("rm");
    (xenstore, root)
}

#[test]
#[ignore = "needs a xenstore daemon"]
fn nodes_come_and_go() {
    let (xenstore, root) = open("nodes");
    let path = &format!("{root}/a/b");
    assert_eq!(xenstore.read(path).expect("read"), None);
    xenstore.write(path, "wert").expect("write");
    assert_eq!(xenstore.read(path).expect("read").as_deref(), Some("wert"));
    xenstore.write(path, "").expect("write");
    assert_eq!(xenstore.read(path).expect("read").as_deref(), Some(""));
    xenstore.mkdir(&format!("{root}/a/c")).expect("mkdir");
    assert_eq!(xenstore.directory(&format!("{root}/a")).expect("directory"), ["b", "c"]);
    xenstore.rm(&root).expect("rm");
    assert!(xenstore.directory(&root).expect("directory").is_empty());
    let refused = xenstore.read("//bad//path").expect_err("a bad path");
    assert_eq!(refused.errno(), Some(Errno::EINVAL));
}

#[test]
#[ignore = "needs a xenstore daemon"]
fn transaction_is_tried_again_and_bounded() {
    let (xenstore, root) = open("transaction");
    let other = Xenstore::open().expect("open");
    let path = &format!("{root}/counter");
    let mut runs = 0;
    let seen: Result<_> = xenstore.transaction(|t| {
        runs += 1;
        let seen = t.read(path)?;
        if runs == 1 {
            other.write(path, "7")?;
        }
        t.write(path, "8")?;
        Ok(seen)
    });
    assert_eq!((seen.expect("commit").as_deref(), runs), (Some("7"), 2));

    let endless: Result<()> = xenstore.transaction(|t| {
        t.read(path)?;
        other.write(path, "9")?;
        t.write(path, "10")
    });
    assert!(matches!(endless, Err(Error::Conflict)));
    let failed: Result<()> = xenstore.transaction(|t| {
        t.write(path, "11")?;
        Err(Error::Conflict)
    });
    assert!(failed.is_err());
    assert_eq!(xenstore.read(path).expect("read").as_deref(), Some("9"));
}

#[test]
#[ignore = "needs a xenstore daemon"]
fn wait_sees_a_change_and_keeps_its_deadline() {
    let (xenstore, root) = open("wait");
    let path = &format!("{root}/state");
    let look = |xs: &Xenstore| -> Result<Option<String>> { xs.read(path) };
    let start = Instant::now();
    let nothing = xenstore.wait_until(&[path], start + Duration::from_millis(200), look);
    assert_eq!(nothing.expect("wait"), None);
    assert!(start.elapsed() >= Duration::from_millis(200));

    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            Xenstore::open().expect("open").write(path, "4").expect("write");
        });
        let found = xenstore.wait_until(&[path], Instant::now() + Duration::from_secs(10), look);
        assert_eq!(found.expect("wait").as_deref(), Some("4"));
    });
}

#[test]
fn a_nul_byte_is_refused() {
    assert!(matches!(c_string("/a\0b"), Err(Error::Nul { .. })));
}
