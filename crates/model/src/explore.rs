//! The whole graph of a model, level by level: what goes wrong, by the shortest way; and the states
//! from which nothing good can be reached any more, though no further fault comes.
//!
//! The second is a question that checkers of single paths don't answer ("from every reachable state
//! some way leads to…", AG EF): the edges that take no fault are kept, and the good states are
//! followed backwards over them.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use stateright::{Model, Representative};

/// What is asked of a model besides its own properties.
pub trait Question: Model {
    /// Whether something wrong has been seen: the search ends.
    fn is_wrong(&self, state: &Self::State) -> bool;
    /// Whether this is what must always be within reach.
    fn is_good(&self, state: &Self::State) -> bool;
    /// Whether progress may count on this action.
    fn may_count_on(&self, action: &Self::Action) -> bool;
}

/// How an exploration ended.
#[derive(Clone, Debug)]
pub struct Report<A> {
    /// States found, mirror images counted once.
    pub states: usize,
    /// Edges between them.
    pub edges: usize,
    /// Of the longest shortest way.
    pub depth: usize,
    /// All states within the bounds were seen.
    pub complete: bool,
    /// The shortest way to something wrong.
    pub wrong: Option<Vec<A>>,
    /// States from which nothing good is within reach.
    pub stuck: usize,
    /// The shortest way to one of them.
    pub stuck_by: Option<Vec<A>>,
}

impl<A> fmt::Display for Report<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} edges, depth {}",
            self.states, self.edges, self.depth
        )
    }
}

/// A fingerprint: each word is folded in by a 128-bit product.
#[derive(Default)]
struct Fold(u64);

impl Fold {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15)
            .wrapping_mul(0xd6e8_feb8_6659_fd93_a076_1d64_78bd_642f);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_isize(&mut self, value: isize) {
        self.word(value as u64);
    }
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are words");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Seen = std::collections::HashMap<u64, u32, BuildHasherDefault<Plain>>;

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = Fold::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Explores up to `max_states` states.
pub fn explore<M>(model: &M, max_states: usize) -> Report<M::Action>
where
    M: Question,
    M::State: Clone + Hash + Representative,
    M::Action: Clone,
{
    let mut graph = Graph::default();
    let mut queue = VecDeque::new();
    for state in model.init_states() {
        let state = state.representative();
        let (_, new) = graph.add(&state, u32::MAX);
        if new {
            queue.push_back(state);
        }
    }
    let mut report = Report {
        states: 0,
        edges: 0,
        depth: 0,
        complete: true,
        wrong: None,
        stuck: 0,
        stuck_by: None,
    };
    let mut actions = Vec::new();
    let mut from = 0;
    let mut level_end = queue.len();
    while let Some(state) = queue.pop_front() {
        if from as usize == level_end {
            report.depth += 1;
            level_end = graph.parents.len();
        }
        if model.is_wrong(&state) {
            report.wrong = Some(graph.way(model, from));
            break;
        }
        graph.good.push(model.is_good(&state));
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let counts = model.may_count_on(&action);
            let Some(next) = model.next_state(&state, action) else {
                continue;
            };
            let next = next.representative();
            if graph.parents.len() >= max_states && !graph.knows(&next) {
                report.complete = false;
                continue;
            }
            let (to, new) = graph.add(&next, from);
            report.edges += 1;
            if counts {
                graph.targets.push(to);
            }
            if new {
                queue.push_back(next);
            }
        }
        graph.ends.push(graph.targets.len());
        from += 1;
    }
    report.states = graph.parents.len();
    if report.wrong.is_none() {
        graph.spread();
        report.stuck = graph.good.iter().filter(|good| !**good).count();
        let first = graph.good.iter().position(|good| !good);
        report.stuck_by = first.map(|index| graph.way(model, index as u32));
    }
    report
}

/// States by number, in the order in which they were found.
#[derive(Default)]
struct Graph {
    seen: Seen,
    prints: Vec<u64>,
    parents: Vec<u32>,
    good: Vec<bool>,
    /// Edges that progress may count on, state by state.
    targets: Vec<u32>,
    ends: Vec<usize>,
}

impl Graph {
    fn knows<S: Hash>(&self, state: &S) -> bool {
        self.seen.contains_key(&fingerprint(state))
    }

    fn add<S: Hash>(&mut self, state: &S, parent: u32) -> (u32, bool) {
        let print = fingerprint(state);
        let next = self.parents.len() as u32;
        let number = *self.seen.entry(print).or_insert(next);
        if number == next {
            self.parents.push(parent);
            self.prints.push(print);
        }
        (number, number == next)
    }

    /// Follows the good states backwards: whoever can step to a good one is good.
    fn spread(&mut self) {
        // Most edges lead to higher numbers, so a sweep from the end settles nearly all.
        loop {
            let mut changed = false;
            for index in (0..self.ends.len()).rev() {
                let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
                if !self.good[index] {
                    let targets = &self.targets[start..self.ends[index]];
                    self.good[index] = targets.iter().any(|to| self.good[*to as usize]);
                    changed |= self.good[index];
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The actions that lead to a state, by the names that the first state gives the nodes.
    fn way<M>(&self, model: &M, number: u32) -> Vec<M::Action>
    where
        M: Model,
        M::State: Clone + Hash + Representative,
        M::Action: Clone,
    {
        let mut prints = Vec::new();
        let mut at = number;
        while at != u32::MAX {
            prints.push(self.prints[at as usize]);
            at = self.parents[at as usize];
        }
        let first = prints.pop();
        let mut states = model.init_states().into_iter();
        let mut state = states
            .find(|s| Some(fingerprint(&s.representative())) == first)
            .expect("a way begins at a first state");
        let mut way = Vec::new();
        let mut actions = Vec::new();
        while let Some(print) = prints.pop() {
            model.actions(&state, &mut actions);
            let (action, next) = actions
                .drain(..)
                .find_map(|action| {
                    let next = model.next_state(&state, action.clone())?;
                    let found = fingerprint(&next.representative()) == print;
                    found.then_some((action, next))
                })
                .expect("every step of a way can be taken again");
            way.push(action);
            state = next;
        }
        way
    }
}
