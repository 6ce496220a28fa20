//! What `twinvm ctl … status --json` says, as far as the demonstration needs it.

use serde::Deserialize;

/// One node's answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// The generation of the record that the node knows.
    pub(crate) generation: u64,
    /// The VM survives the death of either host.
    pub(crate) protected: bool,
    /// What the answering node is.
    pub(crate) role: String,
    /// Bytes of log made so far.
    pub(crate) log_bytes: Option<u64>,
    /// Instructions executed so far.
    pub(crate) icount: Option<u64>,
    /// The takeover by which the node became live.
    pub(crate) last_takeover: Option<Takeover>,
    /// What the node is waiting for, in words.
    pub(crate) waiting_for: Option<String>,
}

/// A takeover, as the node that took over measured it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Takeover {
    /// When, in milliseconds since 1970.
    pub(crate) at_unix_ms: Option<f64>,
    /// From the last sign of life to the suspicion.
    pub(crate) detect_ms: Option<f64>,
    /// Winning the arbiter's record.
    pub(crate) arbitrate_ms: Option<f64>,
    /// Executing what was left of the log.
    pub(crate) drain_ms: Option<f64>,
    /// Announcing the MAC address.
    pub(crate) announce_ms: Option<f64>,
}

impl Takeover {
    /// The parts of the pause that are known, as in "detect 300.1, drain 0.2".
    pub(crate) fn parts(&self) -> String {
        let parts = [
            ("detect", self.detect_ms),
            ("arbitrate", self.arbitrate_ms),
            ("drain", self.drain_ms),
            ("announce", self.announce_ms),
        ];
        let known = parts.into_iter().filter_map(|(name, ms)| {
            let ms = ms?;
            Some(format!("{name} {ms:.1}"))
        });
        known.collect::<Vec<_>>().join(", ")
    }
}

impl Status {
    /// Reads the command's output.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text.trim())
            .map_err(|error| format!("`ctl status --json` answered {:?}: {error}", head(text)))
    }

    /// The answering node executes and speaks.
    pub(crate) fn is_live(&self) -> bool {
        self.role == "live"
    }

    /// What the node says it is doing, for messages.
    pub(crate) fn in_words(&self) -> String {
        match self.waiting_for.as_deref() {
            None | Some("") => self.role.clone(),
            Some(waiting_for) => format!("{}, waiting for {waiting_for}", self.role),
        }
    }
}

fn head(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_answer_is_read() {
        let status = Status::parse(
            r#"{"vm":"demo","generation":3,"protected":true,"role":"live","lag_ms":1.2,
            "log_bytes_s":1234,"log_bytes":5,"output_hold_us":{"p50":1,"p99":2},"mips":83.5,
            "icount":99,"last_takeover":{"at_unix_ms":1700000000123,"detect_ms":12.5,
            "arbitrate_ms":1,"drain_ms":0.5,"announce_ms":null},
            "nodes":[{"name":"a","role":"live","icount":1}],"waiting_for":null}"#,
        )
        .unwrap();
        assert!(status.is_live() && status.protected);
        assert_eq!(status.generation, 3);
        assert_eq!((status.log_bytes, status.icount), (Some(5), Some(99)));
        let takeover = status.last_takeover.unwrap();
        assert_eq!(takeover.detect_ms, Some(12.5));
        assert_eq!(takeover.announce_ms, None);
        assert_eq!(takeover.parts(), "detect 12.5, arbitrate 1.0, drain 0.5");
        assert_eq!(status.in_words(), "live");
    }

    #[test]
    fn an_answer_of_a_node_that_waits_is_read() {
        let status = Status::parse(
            r#"{"role":"cold","last_takeover":null,"waiting_for":"the peer at 127.0.0.1:1"}"#,
        )
        .unwrap();
        assert!(!status.is_live() && !status.protected);
        assert_eq!(
            status.in_words(),
            "cold, waiting for the peer at 127.0.0.1:1"
        );
        assert_eq!(status.last_takeover, None);
    }

    #[test]
    fn anything_else_is_refused_with_what_was_found() {
        let error = Status::parse("no such node\n").unwrap_err();
        assert!(error.contains("no such node"), "{error}");
    }
}
