//! Every source of a family walks through the rules at once.
//!
//! What moves is a set of sources that *may* have come this far. A condition that is not known lets its sources both pass and not,
//! so a verdict collects all who may meet it: who may be accepted and may not be dropped is accepted for certain, and the other way
//! round; about who may be both nothing can be told, and the conditions that were not known are the reason. Loss of knowledge
//! makes those more, never fewer.

use std::collections::BTreeMap;
use std::fmt;

use super::machine::Machine;
use super::packet::Packet;
use super::ruleset::{Chain, Expr, Family, Hook, Map, Point, Rule, Ruleset, Table, Verdict};
use super::sources::Sources;
use super::split::Split;

/// Rules that are walked through for one question, those of a chain that is jumped to twice counted twice.
const STEPS_MAX: u32 = 2_000_000;
/// Jumps into each other; nf_tables itself allows 16 (`NFT_JUMP_STACK_SIZE`), ip_tables as many as there are chains.
const DEPTH_MAX: u32 = 64;

/// What became of the sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    /// Who may come through, all chains passed.
    pub(super) accepted: Sources,
    /// By what each may be accepted in each chain.
    pub(super) accepts: Vec<(Sources, Place)>,
    /// By what each may be refused.
    pub(super) drops: Vec<(Sources, Place)>,
    /// For whom a rule that decides something depended on what.
    pub(super) doubts: Vec<(Sources, Place, String)>,
}

impl Walk {
    /// Who may be refused.
    pub(super) fn dropped(&self) -> Sources {
        union(&self.drops)
    }
}

fn union(places: &[(Sources, Place)]) -> Sources {
    places.iter().flat_map(|(sources, _)| sources.ranges().iter().copied()).collect()
}

/// A rule, or the policy of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
    /// None of the policy.
    pub(super) rule: Option<u64>,
    /// The base chain that led there.
    pub(super) base: String,
}

/// As `nft -a list ruleset` and `iptables -L --line-numbers` name it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { family, table, chain, rule, .. } = self;
        write!(f, "{} {table} {chain}", family.word())?;
        match (rule, family) {
            (None, _) => f.write_str(" policy"),
            (Some(number), Family::Legacy(_)) => write!(f, " rule {number}"),
            (Some(handle), _) => write!(f, " handle {handle}"),
        }
    }
}

/// Walks through all base chains that a packet for this host passes.
pub(super) fn walk(ruleset: &Ruleset, packet: &Packet) -> Walk {
    let mut walker = Walker { machine: Machine::new(packet), walk: Walk::default(), steps: 0 };
    let mut arriving = Sources::all(packet.ip);
    for (table, name, chain, hook) in base_chains(ruleset, packet) {
        arriving = walker.base(&Scope { table, base: name, name, hook }, chain, &arriving);
    }
    walker.walk.accepted = arriving;
    walker.walk
}

type Base<'a> = (&'a Table, &'a str, &'a Chain, &'a Hook);

fn base_chains<'a>(ruleset: &'a Ruleset, packet: &Packet) -> Vec<Base<'a>> {
    let tables = ruleset.tables.iter().filter(|table| table.family.sees(packet.ip));
    let chains = tables.flat_map(|table| table.chains.iter().map(move |(name, chain)| (table, name.as_str(), chain)));
    let hooked = chains.filter_map(|(table, name, chain)| Some((table, name, chain, chain.hook.as_ref()?)));
    let mut bases: Vec<Base<'a>> = hooked.filter(|(_, _, _, hook)| hook.point != Point::Elsewhere).collect();
    bases.sort_by_key(|(_, _, _, hook)| (hook.point, hook.priority));
    bases
}

/// The chain that is being walked through, and how one came into its table.
#[derive(Clone, Copy)]
struct Scope<'a> {
    table: &'a Table,
    base: &'a str,
    name: &'a str,
    hook: &'a Hook,
}

impl Scope<'_> {
    fn place(&self, rule: Option<u64>) -> Place {
        let (table, chain) = (self.table.name.clone(), self.name.to_owned());
        Place { family: self.table.family, table, chain, rule, base: self.base.to_owned() }
    }

    /// Whether only what came by some interfaces passes it.
    fn is_partial(&self) -> bool {
        self.hook.point == Point::Ingress || matches!(self.table.family, Family::Netdev | Family::Bridge)
    }
}

/// Who meets a verdict, for certain and perhaps.
#[derive(Clone, Default)]
struct Meeting {
    sure: Sources,
    perhaps: Sources,
    why: Option<String>,
}

impl Meeting {
    fn all(&self) -> Sources {
        self.sure.or(&self.perhaps)
    }

    fn is_empty(&self) -> bool {
        self.sure.is_empty() && self.perhaps.is_empty()
    }

    /// Those of them for whom a condition holds.
    fn filtered(&self, split: &Split) -> Meeting {
        let may = split.yes.or(&split.maybe);
        Meeting {
            sure: self.sure.and(&split.yes),
            perhaps: self.sure.and(&split.maybe).or(&self.perhaps.and(&may)),
            why: self.why.clone().or_else(|| split.why.clone()),
        }
    }
}

/// Where those are who have not met a verdict that ends it.
#[derive(Default)]
struct Onward {
    /// At the next rule.
    next: Sources,
    /// Back where the chain was jumped to from.
    back: Sources,
}

struct Walker<'a> {
    machine: Machine<'a>,
    walk: Walk,
    steps: u32,
}

impl Walker<'_> {
    /// Gives who comes out of a base chain.
    fn base(&mut self, scope: &Scope<'_>, chain: &Chain, arriving: &Sources) -> Sources {
        let (accepts, drops) = (self.walk.accepts.len(), self.walk.drops.len());
        let rest = self.chain(scope, chain, arriving, 0);
        if !rest.is_empty() {
            let list = if scope.hook.accepts { &mut self.walk.accepts } else { &mut self.walk.drops };
            list.push((rest, scope.place(None)));
        }
        if scope.is_partial() {
            self.walk.accepts.truncate(accepts);
            let refused = self.walk.drops[drops..].iter().cloned();
            self.walk
                .doubts
                .extend(refused.map(|(sources, place)| (sources, place, "the way by which it comes".into())));
            return arriving.clone();
        }
        union(&self.walk.accepts[accepts..])
    }

    /// Gives who comes to the end of a chain, or is sent back.
    fn chain(&mut self, scope: &Scope<'_>, chain: &Chain, arriving: &Sources, depth: u32) -> Sources {
        let mut here = arriving.clone();
        let mut back = Sources::default();
        for rule in &chain.rules {
            if here.is_empty() {
                break;
            }
            self.steps += 1;
            if self.steps > STEPS_MAX || depth > DEPTH_MAX {
                self.undecided(&here, scope.place(Some(rule.number)), "more rules than are looked through");
                break;
            }
            let onward = self.rule(scope, rule, &here, depth);
            here = onward.next;
            back = back.or(&onward.back);
        }
        here.or(&back)
    }

    fn rule(&mut self, scope: &Scope<'_>, rule: &Rule, arriving: &Sources, depth: u32) -> Onward {
        let mut meeting = Meeting { sure: arriving.clone(), ..Meeting::default() };
        self.machine.begin_rule();
        for expr in &rule.exprs {
            let outcomes = match expr {
                Expr::Verdict(verdict) => vec![(verdict.clone(), meeting)],
                Expr::Unknown(name) => vec![(Verdict::Whatever(name.clone()), meeting)],
                Expr::Lookup { sreg, set, map: Map::Verdict, .. } => self.outcomes(scope, *sreg, set, &meeting),
                _ => {
                    if let Some(split) = self.machine.step(scope.table, expr) {
                        meeting = meeting.filtered(&split);
                    }
                    if meeting.is_empty() {
                        break;
                    }
                    continue;
                }
            };
            return self.verdicts(scope, rule.number, outcomes, arriving, depth);
        }
        Onward { next: arriving.clone(), back: Sources::default() }
    }

    /// Who gets which verdict from a map.
    fn outcomes(&self, scope: &Scope<'_>, sreg: usize, set: &str, meeting: &Meeting) -> Vec<(Verdict, Meeting)> {
        let Some(set) = scope.table.sets.get(set) else {
            return vec![(Verdict::Whatever(format!("the map {set}")), meeting.clone())];
        };
        let mut by_verdict: BTreeMap<&Verdict, Vec<Split>> = BTreeMap::new();
        for (split, verdict) in self.machine.elements(sreg, set) {
            by_verdict.entry(verdict.unwrap_or(&Verdict::Continue)).or_default().push(split);
        }
        let each = by_verdict.into_iter();
        each.map(|(verdict, splits)| (verdict.clone(), meeting.filtered(&Split::any(splits)))).collect()
    }

    fn verdicts(
        &mut self,
        scope: &Scope<'_>,
        rule: u64,
        outcomes: Vec<(Verdict, Meeting)>,
        arriving: &Sources,
        depth: u32,
    ) -> Onward {
        let mut onward = Onward { next: arriving.clone(), ..Onward::default() };
        for (_, meeting) in &outcomes {
            onward.next = onward.next.minus(&meeting.sure);
        }
        for (verdict, meeting) in outcomes.into_iter().filter(|(_, meeting)| !meeting.is_empty()) {
            let after = self.verdict(scope, rule, &verdict, meeting, depth);
            onward.next = onward.next.or(&after.next);
            onward.back = onward.back.or(&after.back);
        }
        onward
    }

    /// Where a verdict leads those who meet it.
    fn verdict(&mut self, scope: &Scope<'_>, rule: u64, verdict: &Verdict, met: Meeting, depth: u32) -> Onward {
        let (all, place) = (met.all(), scope.place(Some(rule)));
        if *verdict != Verdict::Continue && !met.perhaps.is_empty() {
            self.walk.doubts.push((met.perhaps, place.clone(), met.why.unwrap_or_default()));
        }
        let (next, back) = match verdict {
            Verdict::Accept => {
                self.walk.accepts.push((all, place));
                Default::default()
            }
            Verdict::Drop => {
                self.walk.drops.push((all, place));
                Default::default()
            }
            Verdict::Continue => (all, Sources::default()),
            Verdict::Return => (Sources::default(), all),
            Verdict::Jump(chain) => (self.jump(scope, chain, &all, place, depth), Sources::default()),
            Verdict::Goto(chain) => (Sources::default(), self.jump(scope, chain, &all, place, depth)),
            // What is translated on its way in is the source, and it comes in.
            Verdict::Elsewhere(_) if scope.hook.nat && scope.hook.point == Point::Input => {
                self.walk.accepts.push((all, place));
                Default::default()
            }
            Verdict::Elsewhere(who) => {
                self.undecided(&all, place, who);
                Default::default()
            }
            Verdict::Whatever(what) => {
                self.undecided(&all, place, what);
                (all.clone(), all)
            }
        };
        Onward { next, back }
    }

    fn jump(&mut self, scope: &Scope<'_>, name: &str, all: &Sources, place: Place, depth: u32) -> Sources {
        match scope.table.chains.get_key_value(name) {
            Some((name, chain)) => self.chain(&Scope { name, ..*scope }, chain, all, depth + 1),
            None => {
                self.undecided(all, place, &format!("the chain {name}"));
                all.clone()
            }
        }
    }

    /// They may be accepted, and they may be refused.
    fn undecided(&mut self, sources: &Sources, place: Place, why: &str) {
        self.walk.accepts.push((sources.clone(), place.clone()));
        self.walk.drops.push((sources.clone(), place.clone()));
        self.walk.doubts.push((sources.clone(), place, why.to_owned()));
    }
}
