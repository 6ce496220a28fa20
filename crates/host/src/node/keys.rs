//! The node's credentials, and whether all is well with them.

use super::NodeOptions;
use crate::tls::{Credentials, Expect, Subject, TlsError};

/// How often they are looked at: certificates end while a node runs, and nobody looks at a pair
/// that works. 10 minutes.
const LOOK_NS: u64 = 600_000_000_000;

/// Credentials, if the channel has any.
#[derive(Debug)]
pub(super) struct Keys {
    credentials: Option<Credentials>,
    looked_ns: Option<u64>,
}

impl Keys {
    /// For this node, to talk to its peer and nobody else.
    pub(super) fn load(options: &NodeOptions) -> Result<Self, TlsError> {
        let load = |files| {
            let own = Subject::Node(options.name.clone());
            Credentials::load(files, own, Expect::Node(options.peer_name.clone()))
        };
        Ok(Self {
            credentials: options.tls.clone().map(load).transpose()?,
            looked_ns: None,
        })
    }

    pub(super) fn credentials(&self) -> Option<Credentials> {
        self.credentials.clone()
    }

    /// How the channel is kept.
    pub(super) fn describe(&self) -> &'static str {
        match self.credentials {
            Some(_) => "TLS",
            None => "without TLS",
        }
    }

    /// What the node's owner should know, now and then.
    pub(super) fn look(&mut self, now_ns: u64) -> Option<String> {
        let before = self.looked_ns;
        if before.is_some_and(|at_ns| now_ns < at_ns.saturating_add(LOOK_NS)) {
            return None;
        }
        self.looked_ns = Some(now_ns);
        self.credentials.as_ref()?.notice()
    }
}
