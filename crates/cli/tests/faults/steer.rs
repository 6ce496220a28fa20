//! What only faults ask of the laboratory.

use crate::lab::LabError;
use crate::lab::hosts::Hosts;
use crate::lab::pair::Pair;

impl Hosts {
    /// From now on the switches drop what fits one of these rules of nftables, and nothing else.
    /// Ports are `back-a`, `back-b`, `back-r` (the arbiter), `front-a`, `front-b` and `front-c`
    /// (the client).
    pub(crate) fn drop_what(&self, rules: &[&str]) -> Result<(), LabError> {
        let mut script = "flush chain bridge lab pass\n".to_owned();
        for rule in rules {
            script += &format!("add rule bridge lab pass {rule} drop\n");
        }
        self.nft(&script)
    }
}

impl Pair {
    /// Whether a node's process has ended by itself, and has been taken away.
    pub(crate) fn has_ended(&mut self, node: usize) -> bool {
        let ended = match &mut self.nodes[node] {
            Some(child) => matches!(child.try_wait(), Ok(Some(_))),
            None => true,
        };
        if ended {
            self.nodes[node] = None;
        }
        ended
    }

    /// Whether a node is this.
    pub(crate) fn is(&self, node: usize, role: &str) -> bool {
        self.status(node).is_ok_and(|status| status["role"] == role)
    }

    /// Kills the arbiter's server.
    pub(crate) fn kill_arbiter(&mut self) {
        if let Some(mut child) = self.arbiter.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
