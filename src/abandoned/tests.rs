use std::time::Duration;

use super::*;
use crate::toolstack::Domain;
use crate::xen::domain::{Flags, Kind};

const ALL: [Seen; 6] =
    [Seen::Gone, Seen::Ended, Seen::Suspended, Seen::SuspendedAndPaused, Seen::Untouched, Seen::Runs];

fn saving(afterwards: Afterwards) -> Charge {
    let (file, partial) = ("/save/vm0".into(), "/save/vm0.7.partial".into());
    Charge::saving(Uuid::nil(), DomId(3), Saving { file, partial, inode: None, afterwards })
}

#[test]
fn a_save_without_its_file_is_as_if_it_had_not_been() {
    for afterwards in [Afterwards::Destroy, Afterwards::Resume, Afterwards::Pause] {
        for seen in ALL {
            let expected = match seen {
                Seen::Suspended | Seen::SuspendedAndPaused => Deed::Resume,
                _ => Deed::Nothing,
            };
            assert_eq!(decide(&saving(afterwards), seen, false), expected, "{afterwards:?} {seen:?}");
        }
    }
}

#[test]
fn a_save_whose_file_is_complete_is_finished() {
    let rows = [
        (Afterwards::Destroy, Seen::Suspended, Deed::Destroy),
        (Afterwards::Destroy, Seen::SuspendedAndPaused, Deed::Destroy),
        (Afterwards::Resume, Seen::Suspended, Deed::Resume),
        (Afterwards::Resume, Seen::SuspendedAndPaused, Deed::Resume),
        (Afterwards::Pause, Seen::Suspended, Deed::ResumePaused),
        (Afterwards::Pause, Seen::SuspendedAndPaused, Deed::Resume),
    ];
    for (afterwards, seen, expected) in rows {
        assert_eq!(decide(&saving(afterwards), seen, true), expected, "{afterwards:?} {seen:?}");
    }
    for afterwards in [Afterwards::Destroy, Afterwards::Resume, Afterwards::Pause] {
        // One that runs has gone on from there: its file is worth nothing, and the domain everything.
        for seen in [Seen::Gone, Seen::Ended, Seen::Untouched, Seen::Runs] {
            assert_eq!(decide(&saving(afterwards), seen, true), Deed::Nothing, "{afterwards:?} {seen:?}");
        }
    }
}

#[test]
fn only_what_that_process_made_and_never_ran_is_destroyed() {
    let unknown = Charge::making(Uuid::nil());
    let known = Charge { domid: Some(DomId(3)), ..unknown.clone() };
    let rows = [
        (Seen::Gone, Deed::Nothing, Deed::Nothing),
        (Seen::Untouched, Deed::Destroy, Deed::Doubt),
        (Seen::Runs, Deed::Watch, Deed::Nothing),
        (Seen::Ended, Deed::Watch, Deed::Nothing),
        (Seen::Suspended, Deed::Watch, Deed::Nothing),
        (Seen::SuspendedAndPaused, Deed::Watch, Deed::Nothing),
    ];
    for (seen, with_number, without) in rows {
        for complete in [false, true] {
            assert_eq!(decide(&known, seen, complete), with_number, "{seen:?}");
            assert_eq!(decide(&unknown, seen, complete), without, "{seen:?}");
        }
    }
}

#[test]
fn a_domain_that_has_run_for_a_moment_is_not_untouched() {
    let seen = |state, paused, nanoseconds| {
        let domain = Domain {
            domid: DomId(3),
            name: "vm0".into(),
            uuid: Uuid::nil(),
            state,
            memory_kib: 0,
            memory_max_kib: 0,
            vcpus: 1,
            cpu_time: Duration::from_nanos(nanoseconds),
        };
        let flags = Flags { running: false, blocked: false, paused, shutdown: false, crashed: false, dying: false };
        Seen::of(Some(&DomainInfo { domain, kind: Kind::Pv, flags, shutdown: None }))
    };
    assert_eq!(seen(RunState::Paused, true, 0), Seen::Untouched);
    assert_eq!(seen(RunState::Paused, true, 1), Seen::Runs);
    assert_eq!(seen(RunState::Running, false, 0), Seen::Runs);
    assert_eq!(seen(RunState::Suspended, false, 9), Seen::Suspended);
    assert_eq!(seen(RunState::Suspended, true, 9), Seen::SuspendedAndPaused);
    assert_eq!(seen(RunState::Shutdown, false, 9), Seen::Ended);
    assert_eq!((seen(RunState::Dying, true, 0), Seen::of(None)), (Seen::Gone, Seen::Gone));
}

#[test]
fn a_file_is_complete_when_it_is_that_file_that_has_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let (file, partial) = (dir.path().join("vm0"), dir.path().join("vm0.7.partial"));
    fs::write(&partial, "half").unwrap();
    let (inode, afterwards) = (Inode::at(&partial), Afterwards::Destroy);
    let saving = Saving { file: file.clone(), partial: partial.clone(), inode, afterwards };
    let charge = Charge::saving(Uuid::nil(), DomId(3), saving);
    assert!(!charge.is_complete());
    fs::write(&file, "what stood there before").unwrap();
    assert!(!charge.is_complete());
    fs::rename(&partial, &file).unwrap();
    assert!(charge.is_complete());

    // Another's file of that name is not removed for it.
    fs::write(&partial, "another's").unwrap();
    remove_partial(&charge).unwrap();
    assert!(partial.exists() && file.exists());
    let not_begun = Charge { saving: charge.saving.clone().map(|saving| Saving { inode: None, ..saving }), ..charge };
    assert!(!not_begun.is_complete());
    remove_partial(&not_begun).unwrap();
    remove_partial(&not_begun).unwrap();
    assert!(!partial.exists() && file.exists());
}
