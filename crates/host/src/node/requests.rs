//! What people and monitoring ask of a node.

use serde_json::{Value, json};
use twinvm_protocol::Ctl;
use twinvm_replica::Event;

use super::{NodeLoop, figures, status};
use crate::ctl_socket::{CtlAnswer, CtlCall, CtlRequest};

impl NodeLoop {
    pub(super) fn on_ctl(&mut self, call: CtlCall) {
        let CtlCall { request, reply } = call;
        let ctl = match request {
            CtlRequest::Status {} => {
                let mut waits = self.shared.waits();
                let writes = self.replica.writes_that_wait();
                if writes > 0 {
                    waits.push(format!(
                        "{writes} of the guest's writes wait until the backup has read what they \
                         change"
                    ));
                }
                let status = status::json(
                    &self.options,
                    &self.replica,
                    &self.meter,
                    &self.watch,
                    &self.happenings,
                    &waits,
                );
                return reply.send(Ok(status));
            }
            CtlRequest::Metrics {} => {
                let queued = self
                    .conns
                    .iter()
                    .map(|conn| self.hub.queued_bytes(*conn))
                    .sum();
                let text = figures::text(&figures::Sources {
                    options: &self.options,
                    replica: &self.replica,
                    meter: &self.meter,
                    watch: &self.watch,
                    happenings: &self.happenings,
                    queued_bytes: queued,
                });
                return reply.send(Ok(Value::String(text)));
            }
            CtlRequest::Digest {} => {
                let answer = self.digest();
                return reply.send(answer);
            }
            CtlRequest::Snapshot { to, force } => return self.on_snapshot(to, force, reply),
            CtlRequest::Stop {} => {
                self.stop_asked = true;
                Ctl::Stop
            }
            CtlRequest::Takeover {} => Ctl::Takeover,
            CtlRequest::Detach {} => Ctl::Detach,
        };
        self.ctl_waiting.push_back((ctl, reply));
        self.apply(Event::Ctl(ctl));
    }

    /// The digest now. A live node puts it into the log too, so that a backup compares it at
    /// that very step.
    fn digest(&mut self) -> CtlAnswer {
        let logged = self.replica.log_digest(&mut self.env);
        self.perform();
        let Some((icount, digest)) = self.replica.digest() else {
            return Err("this node has no machine now".to_owned());
        };
        let compared = self.replica.compared_digest().map(|(icount, digest)| {
            json!({
                "icount": icount,
                "digest": format!("{digest:032x}"),
            })
        });
        Ok(json!({
            "icount": icount,
            "digest": format!("{digest:032x}"),
            "position": logged,
            "compared": compared,
        }))
    }

    /// What has become of a request that the protocol took.
    pub(super) fn answer(&mut self, ctl: Ctl, result: Result<(), String>) {
        let at = self
            .ctl_waiting
            .iter()
            .position(|(waiting, _)| *waiting == ctl);
        let Some((_, reply)) = at.and_then(|at| self.ctl_waiting.remove(at)) else {
            return;
        };
        reply.send(match result {
            Ok(()) => Ok(json!({ "begun": true })),
            Err(why) => Err(why),
        });
    }
}
