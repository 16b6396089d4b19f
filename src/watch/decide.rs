//! What is to be done about a domain that has shut down: from why it did, from what its configuration says, and from who has it in hand.
//! Pure.

use serde_json::Value;

use crate::xen::domain::ShutdownReason;

/// What a configuration can say (`libxl_action_on_shutdown`, libxl_types.idl).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing is left of it.
    Destroy,
    /// The same, then it is started anew.
    Restart,
    /// It stays under another name, and is started anew beside that.
    RestartRename,
    /// It stays as it is, for a person to look at.
    Preserve,
    /// Its memory is written to a file, then as [`Action::Destroy`].
    CoredumpDestroy,
    /// Its memory is written to a file, then as [`Action::Restart`].
    CoredumpRestart,
    /// It begins anew in the memory that it has, as for kexec.
    SoftReset,
}

impl Action {
    /// Reads libxl's word, which it writes with underscores and its users with hyphens.
    fn parse(word: &str) -> Option<Action> {
        Some(match word.replace('-', "_").as_str() {
            "destroy" => Action::Destroy,
            "restart" => Action::Restart,
            "restart_rename" | "rename_restart" => Action::RestartRename,
            "preserve" => Action::Preserve,
            "coredump_destroy" => Action::CoredumpDestroy,
            "coredump_restart" => Action::CoredumpRestart,
            "soft_reset" => Action::SoftReset,
            _ => return None,
        })
    }
}

/// The five actions of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions {
    /// When it powers itself off.
    pub poweroff: Action,
    /// When it reboots.
    pub reboot: Action,
    /// When it crashes.
    pub crash: Action,
    /// When its watchdog fires.
    pub watchdog: Action,
    /// When it asks for a soft reset.
    pub soft_reset: Action,
}

impl Actions {
    /// Reads them from libxl's JSON, which leaves out what is at its default, destroy. A word that this program does not know does the
    /// least: the domain is preserved.
    #[must_use]
    pub fn of(config: &Value) -> Actions {
        let action = |key: &str| match config.get(key).and_then(Value::as_str) {
            None => Action::Destroy,
            Some(word) => Action::parse(word).unwrap_or_else(|| {
                tracing::warn!(key, word, "not an action that is known here: the domain is preserved");
                Action::Preserve
            }),
        };
        Actions {
            poweroff: action("on_poweroff"),
            reboot: action("on_reboot"),
            crash: action("on_crash"),
            watchdog: action("on_watchdog"),
            soft_reset: action("on_soft_reset"),
        }
    }

    /// What is said for a reason. As xl, a reason that is not known here means destroy.
    fn on(&self, reason: ShutdownReason) -> Option<Action> {
        Some(match reason {
            ShutdownReason::Poweroff => self.poweroff,
            ShutdownReason::Reboot => self.reboot,
            ShutdownReason::Crash => self.crash,
            ShutdownReason::Watchdog => self.watchdog,
            ShutdownReason::SoftReset => self.soft_reset,
            ShutdownReason::Unknown => Action::Destroy,
            ShutdownReason::Suspend => return None,
        })
    }
}

/// Who has the domain in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Nobody else: it is the watcher's.
    Ours,
    /// A migration that is not decided, or that has moved it away.
    Migration,
    /// xl's own process for this domain, which acts by itself.
    Xl,
}

/// What a watcher does about a domain that has shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing now. It looks again.
    Wait,
    /// This.
    Act {
        /// First its memory is written to a file.
        dump: bool,
        /// Then.
        deed: Deed,
    },
}

/// See [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the action of the same name")]
pub enum Deed {
    Destroy,
    Restart,
    RestartRenamed,
    Preserve,
    SoftReset,
}

/// Decides. A domain that has suspended itself is whoever's who made it: he resumes or destroys it.
#[must_use]
pub fn judge(reason: ShutdownReason, actions: &Actions, hand: Hand) -> Verdict {
    match (hand, actions.on(reason)) {
        (Hand::Migration | Hand::Xl, _) | (Hand::Ours, None) => Verdict::Wait,
        (Hand::Ours, Some(action)) => verdict(action),
    }
}

fn verdict(action: Action) -> Verdict {
    let (dump, deed) = match action {
        Action::Destroy => (false, Deed::Destroy),
        Action::Restart => (false, Deed::Restart),
        Action::RestartRename => (false, Deed::RestartRenamed),
        Action::Preserve => (false, Deed::Preserve),
        Action::CoredumpDestroy => (true, Deed::Destroy),
        Action::CoredumpRestart => (true, Deed::Restart),
        Action::SoftReset => (false, Deed::SoftReset),
    };
    Verdict::Act { dump, deed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const REASONS: [ShutdownReason; 7] = [
        ShutdownReason::Poweroff,
        ShutdownReason::Reboot,
        ShutdownReason::Suspend,
        ShutdownReason::Crash,
        ShutdownReason::Watchdog,
        ShutdownReason::SoftReset,
        ShutdownReason::Unknown,
    ];

    fn act(deed: Deed) -> Verdict {
        Verdict::Act { dump: false, deed }
    }

    #[test]
    fn each_reason_has_its_own_action() {
        let actions = Actions::of(&json!({
            "on_poweroff": "preserve", "on_reboot": "restart", "on_crash": "coredump_restart",
            "on_watchdog": "restart_rename", "on_soft_reset": "soft_reset",
        }));
        let rows = [
            (ShutdownReason::Poweroff, act(Deed::Preserve)),
            (ShutdownReason::Reboot, act(Deed::Restart)),
            (ShutdownReason::Crash, Verdict::Act { dump: true, deed: Deed::Restart }),
            (ShutdownReason::Watchdog, act(Deed::RestartRenamed)),
            (ShutdownReason::SoftReset, act(Deed::SoftReset)),
            (ShutdownReason::Unknown, act(Deed::Destroy)),
            (ShutdownReason::Suspend, Verdict::Wait),
        ];
        for (reason, expected) in rows {
            assert_eq!(judge(reason, &actions, Hand::Ours), expected, "{reason:?}");
        }
    }

    #[test]
    fn what_another_has_in_hand_is_left_alone() {
        let actions = Actions::of(&json!({ "on_reboot": "restart", "on_crash": "preserve" }));
        for reason in REASONS {
            for hand in [Hand::Migration, Hand::Xl] {
                assert_eq!(judge(reason, &actions, hand), Verdict::Wait, "{reason:?} {hand:?}");
            }
        }
    }

    #[test]
    fn a_suspended_domain_is_left_alone_whatever_is_configured() {
        for word in ["destroy", "restart", "restart_rename", "preserve", "coredump_destroy", "soft_reset"] {
            let all = ["on_poweroff", "on_reboot", "on_crash", "on_watchdog", "on_soft_reset"];
            let config: Value = all.iter().map(|key| ((*key).to_owned(), Value::from(word))).collect();
            assert_eq!(judge(ShutdownReason::Suspend, &Actions::of(&config), Hand::Ours), Verdict::Wait, "{word}");
        }
    }

    #[test]
    fn what_libxl_leaves_out_is_destroy_and_what_is_unknown_is_preserved() {
        assert_eq!(judge(ShutdownReason::Reboot, &Actions::of(&json!({})), Hand::Ours), act(Deed::Destroy));
        let unknown = Actions::of(&json!({ "on_reboot": "hibernate" }));
        assert_eq!(judge(ShutdownReason::Reboot, &unknown, Hand::Ours), act(Deed::Preserve));
    }

    #[test]
    fn both_spellings_are_read() {
        for (word, action) in [
            ("rename-restart", Action::RestartRename),
            ("restart_rename", Action::RestartRename),
            ("coredump-destroy", Action::CoredumpDestroy),
            ("coredump_destroy", Action::CoredumpDestroy),
            ("soft-reset", Action::SoftReset),
        ] {
            assert_eq!(Action::parse(word), Some(action), "{word}");
        }
    }
}
