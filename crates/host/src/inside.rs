//! What this crate makes of bytes that it did not write: its parsers without the files, sockets and
//! threads around them, for those who try to break them.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use twinvm_protocol::Record;
use twinvm_protocol::arbiter::wire::VmName;

use crate::arbiter::etcd::EtcdArbiter;
use crate::ctl_socket::{self, CtlRequest};
use crate::tls::{Expect, Subject, TlsFiles};
use crate::{lan_port, metrics, store, tls};

/// Bytes of a control socket's stream that are written before the first is read: a socket holds
/// them.
const MAX_STREAM_BYTES: usize = 64 << 10;

/// A whole answer of etcd's gateway to a read (HTTP, JSON): the record under the key of the VM
/// called `shop`, if that is what it says.
pub fn etcd_answer(answer: &[u8]) -> Option<Option<Record>> {
    let vm = VmName::new("shop")?;
    EtcdArbiter::new(Vec::new(), &vm, None).understand(answer)
}

/// A line that asks a node.
pub fn ctl_request(line: &[u8]) -> Option<CtlRequest> {
    ctl_socket::parse_request(line).ok()
}

/// Whether a line is one that a node answers with.
pub fn is_ctl_answer(line: &[u8]) -> bool {
    ctl_socket::parse_answer(line).is_ok()
}

/// The lines that a client has sent before it left, as the node's side of the socket reads them.
pub fn ctl_lines(stream: &[u8]) -> Vec<Vec<u8>> {
    let Ok((mut client, node)) = UnixStream::pair() else {
        return Vec::new();
    };
    let stream = &stream[..stream.len().min(MAX_STREAM_BYTES)];
    if client.write_all(stream).is_err() || client.shutdown(Shutdown::Write).is_err() {
        return Vec::new();
    }
    ctl_socket::lines_of(&node)
}

/// The whole answer to a request for figures; `None` if the request is not whole.
pub fn metrics_answer(request: &[u8]) -> Option<String> {
    metrics::answer_to(request)
}

/// The node's id in a file of its folder.
pub fn node_id(file: &[u8]) -> Option<u128> {
    store::value_in(file, store::parse_id)
}

/// The generation in a file of its folder.
pub fn node_generation(file: &[u8]) -> Option<u64> {
    store::value_in(file, store::parse_generation)
}

/// Whether the contents of `ca`, `cert` and `key` are credentials of node `a`.
pub fn are_credentials(contents: [&[u8]; 3]) -> bool {
    let own = Subject::Node("a".to_owned());
    tls::are_usable(&no_files(), contents, &own, &Expect::AnyNode)
}

/// Whether the contents of `ca`, `cert` and `key` are a client's for etcd.
pub fn are_client_credentials(contents: [&[u8]; 3]) -> bool {
    tls::are_client_credentials(&no_files(), contents)
}

/// Whom a certificate (DER) is for, by what it says of itself.
pub fn subject_of(certificate: &[u8]) -> Option<Subject> {
    tls::subject_of(certificate)
}

/// Names for messages.
fn no_files() -> TlsFiles {
    TlsFiles {
        ca: "ca".into(),
        cert: "cert".into(),
        key: "key".into(),
    }
}

/// The packets that a node cuts out of the switch's stream.
pub fn switch_packets(stream: &[u8]) -> Vec<Vec<u8>> {
    lan_port::packets_in(stream)
}
