use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Write;

use super::note::tests::volume;
use super::*;
use crate::admission::Act;

const VM0: DomId = DomId(3);

/// A domain that writes down what is done to it. It stands for no Xen: what is looked at is the order of the deeds, and the file.
struct Pretended {
    target: PathBuf,
    state: Cell<Option<RunState>>,
    writes: Result<(), &'static str>,
    refuses: Option<&'static str>,
    deeds: RefCell<Vec<String>>,
}

impl Pretended {
    fn at(dir: &Path) -> Pretended {
        Pretended {
            target: dir.join("vm0"),
            state: Cell::new(Some(RunState::Running)),
            writes: Ok(()),
            refuses: None,
            deeds: RefCell::default(),
        }
    }

    fn deed(&self, name: &'static str, then: Option<RunState>) -> Result<(), Error> {
        self.deeds.borrow_mut().push(format!("{name}, file {}", self.target.exists()));
        match self.refuses == Some(name) {
            true => Err("refused".into()),
            false => {
                self.state.set(then);
                Ok(())
            }
        }
    }

    fn save(&self, afterwards: Afterwards, cancel: &Cancel) -> Outcome {
        let config = DomainConfig::from_json(r#"{"c_info": {"name": "vm0", "domid": 3}}"#).expect("JSON");
        let request = Request {
            domid: VM0,
            uuid: Uuid::nil(),
            config,
            memory_kib: 16,
            file: &self.target,
            replace: false,
            afterwards,
            note: Some(note()),
        };
        let events: OnStream = Arc::new(|_| {});
        let run_dir = tempfile::tempdir().expect("a directory");
        let mut alone = Record::act(run_dir.path(), Act::Save, "vm0").expect("a record");
        save(self, &request, &mut alone, &|| Some(note()), &events, cancel)
    }

    fn deeds(&self) -> Vec<String> {
        self.deeds.take()
    }
}

fn note() -> Note {
    Note::new("node1", uuid::Uuid::nil(), &[volume(5)])
}

impl Domains for Pretended {
    fn write(&self, _: DomId, fd: BorrowedFd<'_>, _: OnStream, _: &dyn Fn(Arc<dyn Abort>)) -> Result<(), Error> {
        File::from(fd.try_clone_to_owned()?).write_all(b"stream")?;
        self.state.set(Some(RunState::Suspended));
        self.writes.map_err(Error::from)
    }

    fn state(&self, _: DomId) -> Result<Option<RunState>, Error> {
        Ok(self.state.get())
    }

    fn resume(&self, _: DomId) -> Result<(), Error> {
        self.deed("resume", Some(RunState::Running))
    }

    fn pause(&self, _: DomId) -> Result<(), Error> {
        self.deed("pause", self.state.get())
    }

    fn destroy(&self, _: DomId) -> Result<(), Error> {
        self.deed("destroy", None)
    }
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).expect("a directory").count()
}

#[test]
fn what_was_asked_for_is_done_when_the_file_is_complete() {
    let rows: [(Afterwards, &[&str]); 3] = [
        (Afterwards::Destroy, &["destroy, file true"]),
        (Afterwards::Resume, &["resume, file true"]),
        (Afterwards::Pause, &["pause, file true", "resume, file true"]),
    ];
    for (afterwards, deeds) in rows {
        let dir = tempfile::tempdir().expect("a directory");
        let domain = Pretended::at(dir.path());
        let outcome = domain.save(afterwards, &Cancel::default());
        assert!(matches!(outcome, Outcome::Saved { left: None, .. }), "{outcome:?}");
        assert_eq!(domain.deeds(), deeds);
        let mut saved = open(&domain.target).expect("a saved file");
        assert_eq!((saved.note, files(dir.path())), (Some(note()), 1));
        // The number that it had is nobody's business where it is restored.
        assert_eq!(saved.config.expect("a configuration").to_json(), r#"{"c_info":{"name":"vm0"}}"#);
        let mut stream = String::new();
        io::Read::read_to_string(&mut saved.file, &mut stream).expect("the rest");
        assert_eq!(stream, "stream");
    }
}

#[test]
fn whatever_fails_the_domain_goes_on_and_there_is_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let domain = Pretended { writes: Err("disk full"), ..Pretended::at(dir.path()) };
    for afterwards in [Afterwards::Destroy, Afterwards::Resume, Afterwards::Pause] {
        let outcome = domain.save(afterwards, &Cancel::default());
        assert!(matches!(&outcome, Outcome::RolledBack { reason } if reason.to_string() == "disk full"), "{outcome:?}");
        assert_eq!((domain.deeds(), files(dir.path())), (vec!["resume, file false".to_owned()], 0));
    }
    // Also a wish to stop that comes when all is written.
    let (domain, cancel) = (Pretended::at(dir.path()), Cancel::default());
    cancel.cancel();
    let outcome = domain.save(Afterwards::Destroy, &cancel);
    assert!(matches!(&outcome, Outcome::RolledBack { reason } if reason.to_string() == "Cancelled"), "{outcome:?}");
    assert_eq!((domain.deeds(), files(dir.path())), (vec!["resume, file false".to_owned()], 0));
}

#[test]
fn a_file_that_cannot_be_begun_leaves_the_domain_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let domain = Pretended::at(dir.path());
    fs::write(&domain.target, "theirs").expect("a file");
    let outcome = domain.save(Afterwards::Destroy, &Cancel::default());
    assert!(matches!(&outcome, Outcome::Failed(why) if why.to_string().contains("--force")), "{outcome:?}");
    assert!(domain.deeds().is_empty() && domain.state.get() == Some(RunState::Running));
}

#[test]
fn what_a_person_must_look_at_is_told_apart() {
    let rows = [(Ok(()), "destroy", Left::SavedAndSuspended, 1), (Err("disk full"), "resume", Left::Suspended, 0)];
    for (writes, refuses, expected, file) in rows {
        let dir = tempfile::tempdir().expect("a directory");
        let domain = Pretended { writes, refuses: Some(refuses), ..Pretended::at(dir.path()) };
        let outcome = domain.save(Afterwards::Destroy, &Cancel::default());
        assert!(matches!(outcome, Outcome::Indeterminate { state, .. } if state == expected), "{outcome:?}");
        assert_eq!(files(dir.path()), file);
    }
}

#[test]
fn a_wish_to_stop_reaches_the_operation() {
    struct Switch(AtomicBool);
    impl Abort for Switch {
        fn abort(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let cancel = Cancel::default();
    let done = abortable(&cancel, |handle| {
        let switch = Arc::new(Switch(AtomicBool::new(false)));
        handle(switch.clone());
        cancel.cancel();
        let aborted =
            poll_until(Instant::now() + Duration::from_secs(20), || switch.0.load(Ordering::SeqCst).then_some(()));
        aborted.map_or(Ok(()), |()| Err("libxl's words".into()))
    });
    assert_eq!(done.expect_err("aborted").to_string(), "Cancelled");
}

#[test]
fn a_file_that_is_no_saved_domain_is_told_from_one_that_is_broken() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("vm0.cfg");
    fs::write(&path, "name = 'vm0'\n").expect("a file");
    assert!(open(&path).expect_err("a domain's file").is_other_kind());
    let broken = format::write("no JSON", 0).expect("a header");
    fs::write(&path, broken).expect("a file");
    assert!(matches!(open(&path), Err(OpenError::Config { .. })));
    assert!(matches!(open(dir.path().join("none").as_path()), Err(OpenError::Open { .. })));
}
