//! The node's figures as Prometheus reads them: names, units and help of the text format 0.0.4.

use std::fmt::{Display, Write};

use twinvm_protocol::RoleKind;
use twinvm_replica::Replica;

use super::NodeOptions;
use super::happenings::Happenings;
use super::status::{Meter, lag_ms};
use super::takeover::Watch;
use crate::time;

/// Every role, for a figure that is 1 for the present one.
const ROLES: [RoleKind; 7] = [
    RoleKind::Cold,
    RoleKind::Joining,
    RoleKind::Backup,
    RoleKind::Claiming,
    RoleKind::Live,
    RoleKind::Frozen,
    RoleKind::Exited,
];

/// Where the figures are.
pub(super) struct Sources<'a> {
    pub(super) options: &'a NodeOptions,
    pub(super) replica: &'a Replica,
    pub(super) meter: &'a Meter,
    pub(super) watch: &'a Watch,
    pub(super) happenings: &'a Happenings,
    pub(super) queued_bytes: usize,
}

/// All of them.
pub(super) fn text(sources: &Sources<'_>) -> String {
    let Sources {
        options,
        replica,
        meter,
        watch,
        happenings,
        queued_bytes,
    } = sources;
    let status = replica.status();
    let protocol = &status.protocol;
    let counts = happenings.counts();
    let seconds = |us: u64| us as f64 / 1e6;
    let mut page = Page::new(&options.vm, &options.name);

    page.gauge("twinvm_info", "What runs here; always 1.");
    let version = env!("CARGO_PKG_VERSION");
    let machine = twinvm_machine::MACHINE_VERSION;
    let labels = format!("version=\"{version}\",machine_version=\"{machine}\"");
    page.value("", &labels, 1);
    page.gauge(
        "twinvm_protected",
        "1 if the VM is protected, as far as this node knows.",
    );
    page.value("", "", u8::from(protocol.protected));
    page.gauge("twinvm_role", "1 for the role that this node has.");
    for role in ROLES {
        let labels = format!("role=\"{role}\"");
        page.value("", &labels, u8::from(role == protocol.role));
    }
    page.gauge(
        "twinvm_generation",
        "The highest generation of the arbiter's record that this node knows.",
    );
    page.value("", "", protocol.generation.0);
    page.gauge("twinvm_session", "1 while a session with the peer is open.");
    page.value("", "", u8::from(protocol.session.is_some()));
    page.counter("twinvm_sessions_total", "Sessions with the peer.");
    page.value("", "", counts.sessions);
    page.counter(
        "twinvm_protection_losses_total",
        "Times that protection was lost.",
    );
    page.value("", "", counts.losses);

    if let Some(lag_ms) = lag_ms(&status) {
        page.gauge("twinvm_lag_seconds", "How far the backup is behind.");
        page.value("", "", lag_ms / 1000.0);
    }
    page.counter(
        "twinvm_log_bytes_total",
        "Bytes of log made since this node went live.",
    );
    page.value("", "", status.log_bytes);
    page.gauge(
        "twinvm_channel_queued_bytes",
        "Bytes not yet sent to the peer.",
    );
    page.value("", "", queued_bytes);
    page.gauge(
        "twinvm_gate_outputs",
        "Outputs that wait for the backup's ack, or on a backup for word that they have left.",
    );
    page.value("", "", protocol.gate_items);
    page.gauge("twinvm_gate_bytes", "Bytes of these outputs.");
    page.value("", "", protocol.gate_bytes);
    page.family(
        "twinvm_output_hold_seconds",
        "summary",
        "How long outputs waited for the backup's ack; quantiles of the last 4096.",
    );
    if let Some((p50, p99)) = replica.hold_us() {
        page.value("", "quantile=\"0.5\"", seconds(p50.into()));
        page.value("", "quantile=\"0.99\"", seconds(p99.into()));
    }
    page.value("_sum", "", seconds(status.holds_us));
    page.value("_count", "", status.holds);

    page.counter(
        "twinvm_steps_total",
        "Steps since power-on that the guest has taken here; 0 without a machine.",
    );
    page.value("", "", status.icount);
    page.gauge(
        "twinvm_mips",
        "Million steps a second, over about two seconds.",
    );
    page.value("", "", meter.mips());
    page.gauge("twinvm_log_position", "End of the log here, in records.");
    page.value("", "", status.position);
    page.counter(
        "twinvm_digests_equal_total",
        "Digests that this node, as backup, found equal since it joined.",
    );
    page.value("", "", status.digests_equal);
    page.counter(
        "twinvm_divergences_total",
        "Times that this node, as backup, found that it had diverged, or that its memory had changed by itself.",
    );
    page.value("", "", status.divergences);

    page.counter(
        "twinvm_disk_copies_sent_bytes_total",
        "Bytes sent to joining nodes for the sake of their disks.",
    );
    page.value("", "", status.disk_copies_bytes.0);
    page.counter(
        "twinvm_disk_copies_heard_bytes_total",
        "Bytes that joining nodes answered to these.",
    );
    page.value("", "", status.disk_copies_bytes.1);

    page.counter("twinvm_takeovers_total", "Times that this node took over.");
    page.value("", "", counts.takeovers);
    if let Some(last) = watch.last() {
        page.gauge(
            "twinvm_last_takeover_timestamp_seconds",
            "When this node took over last.",
        );
        page.value("", "", last.at_unix_ms as f64 / 1000.0);
        page.gauge(
            "twinvm_last_takeover_seconds",
            "How long the stages of the last takeover took.",
        );
        for (stage, ms) in last.stages {
            if let Some(ms) = ms {
                let seconds = format!("{:.6}", ms / 1000.0);
                page.value("", &format!("stage=\"{stage}\""), seconds);
            }
        }
    }

    page.counter(
        "process_cpu_seconds_total",
        "Processor time of this process.",
    );
    page.value("", "", time::process_cpu_ns() as f64 / 1e9);
    if let Some(bytes) = time::rss_bytes() {
        page.gauge(
            "process_resident_memory_bytes",
            "Memory of this process in RAM.",
        );
        page.value("", "", bytes);
    }
    page.text
}

/// The text as it grows.
struct Page {
    text: String,
    /// Labels of every value.
    labels: String,
    name: &'static str,
}

impl Page {
    fn new(vm: &str, node: &str) -> Self {
        Self {
            text: String::with_capacity(8 << 10),
            labels: format!("vm=\"{}\",node=\"{}\"", escaped(vm), escaped(node)),
            name: "",
        }
    }

    fn gauge(&mut self, name: &'static str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &'static str, help: &str) {
        self.family(name, "counter", help);
    }

    /// The values that follow are of this name.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(
            self.text,
            "{}{suffix}{{{}{comma}{labels}}} {value}",
            self.name, self.labels
        );
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_have_the_formats_form() {
        let mut page = Page::new("odd \"name\"\\", "a");
        page.gauge("twinvm_protected", "Whether.");
        page.value("", "", 1);
        page.family("twinvm_output_hold_seconds", "summary", "How long.");
        page.value("", "quantile=\"0.5\"", 0.000125);
        page.value("_count", "", 7);
        assert_eq!(
            page.text,
            "# HELP twinvm_protected Whether.\n# TYPE twinvm_protected gauge\n\
             twinvm_protected{vm=\"odd \\\"name\\\"\\\\\",node=\"a\"} 1\n\
             # HELP twinvm_output_hold_seconds How long.\n\
             # TYPE twinvm_output_hold_seconds summary\n\
             twinvm_output_hold_seconds{vm=\"odd \\\"name\\\"\\\\\",node=\"a\",quantile=\"0.5\"} \
             0.000125\n\
             twinvm_output_hold_seconds_count{vm=\"odd \\\"name\\\"\\\\\",node=\"a\"} 7\n"
        );
    }
}
