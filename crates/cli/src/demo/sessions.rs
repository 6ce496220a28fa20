//! Sessions with the Debian guest that stay open beside the ledger: pgbench, a web client that
//! keeps its connection, and a shell over SSH that counts seconds.

mod web;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::error::DemoError;
use super::processes::{Process, read_end};
use super::report::Session;
use super::vm::Files;
use crate::lab::pg::Pg;
use web::Web;

/// The programs that sessions are made of, and how to get them.
const PROGRAMS: [&str; 3] = ["pgbench", "ssh", "ssh-keygen"];
/// Clients of pgbench, and transactions a second that they begin: a load beside the ledger's, and
/// not all that the guest can do.
const PGBENCH_CLIENTS: u32 = 2;
const PGBENCH_RATE: u32 = 20;
/// pgbench ends when it is told to, and not by itself.
const PGBENCH_SECONDS: &str = "1000000";
/// How long making pgbench's tables may take, 100,000 rows on a busy host.
const INIT_LIMIT: Duration = Duration::from_secs(300);
/// How long pgbench may take for its last transactions.
const END_LIMIT: Duration = Duration::from_secs(30);
/// The key that may log in.
pub(super) const KEY: &str = "ssh_key";
/// What the shell in the guest does.
const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 1; done";
/// Bytes of a session's log that are looked at: more than hours of it.
const LOG_BYTES: u64 = 1 << 22;

/// Looks for the programs before anything is started.
pub(super) fn look_for_programs() -> Result<(), DemoError> {
    for program in PROGRAMS {
        if find(program).is_none() {
            return Err(DemoError::Input(format!(
                "no {program} in PATH: `make demo GUEST=debian` installs it"
            )));
        }
    }
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Makes a key for this run alone, in the file `key`; the public half, as base64.
pub(crate) fn make_key(key: &Path) -> Result<String, DemoError> {
    let public = key.with_extension("pub");
    [key, &public].into_iter().try_for_each(remove)?;
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f"]);
    let status = command.arg(key).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => fs::read(&public)
            .map(|key| base64(&key))
            .map_err(DemoError::io(&public)),
        Ok(status) => Err(DemoError::failed(format!("ssh-keygen: {status}"))),
        Err(error) => Err(DemoError::failed(format!("ssh-keygen: {error}"))),
    }
}

/// As base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            text.push(match letter <= three.len() {
                true => char::from(LETTERS[(bits >> (18 - 6 * letter)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

/// The sessions at work.
pub(super) struct Sessions {
    pgbench: Process,
    ssh: Process,
    web: Web,
}

/// Where the guest's services answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Services {
    pub(super) postgres: SocketAddr,
    pub(super) web: SocketAddr,
    pub(super) ssh: SocketAddr,
}

fn pgbench(address: SocketAddr) -> Command {
    let mut command = Command::new("pgbench");
    command.args(["-h", &address.ip().to_string()]);
    command.args(["-p", &address.port().to_string(), "-U", "postgres"]);
    command.env("LC_ALL", "C");
    command
}

/// Makes pgbench's tables; `check` is asked meanwhile.
pub(super) fn make_tables(
    files: &Files,
    address: SocketAddr,
    mut check: impl FnMut() -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    let log = files.path("pgbench-init.log");
    let mut command = pgbench(address);
    command.args(["--initialize", "--quiet", "postgres"]);
    let mut process = Process::start("pgbench --initialize", &mut command, &log)?;
    let until = Instant::now() + INIT_LIMIT;
    while !process.wait(Instant::now() + Duration::from_millis(100)) {
        check()?;
        if Instant::now() > until {
            return Err(DemoError::failed_see(
                "pgbench --initialize takes too long",
                &log,
            ));
        }
    }
    match process.has_succeeded() {
        true => Ok(()),
        false => Err(DemoError::failed_see("pgbench --initialize", &log)),
    }
}

/// Options of ssh for this run alone: nobody is asked, no file of its user is read or written.
pub(crate) fn keep_to_ourselves(ssh: &mut Command, key: &Path) {
    ssh.args(["-T", "-F", "/dev/null", "-o", "BatchMode=yes"]);
    ssh.args(["-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null"]);
    ssh.args(["-o", "LogLevel=ERROR", "-i"]).arg(key);
}

impl Sessions {
    /// Opens all of them.
    pub(super) fn start(files: &Files, services: &Services) -> Result<Self, DemoError> {
        let (clients, rate) = (PGBENCH_CLIENTS.to_string(), PGBENCH_RATE.to_string());
        let mut command = pgbench(services.postgres);
        command.args(["--no-vacuum", "--client", &clients, "--rate", &rate]);
        command.args(["--time", PGBENCH_SECONDS, "postgres"]);
        let pgbench = Process::start("pgbench", &mut command, &fresh(files, "pgbench.log")?)?;
        let mut command = Command::new("ssh");
        keep_to_ourselves(&mut command, &files.path(KEY));
        command.arg("-n");
        command.args(["-p", &services.ssh.port().to_string()]);
        command
            .arg(format!("root@{}", services.ssh.ip()))
            .arg(COUNT);
        let ssh = Process::start("ssh", &mut command, &fresh(files, "ssh.log")?)?;
        Ok(Self {
            pgbench,
            ssh,
            web: Web::start(services.web)?,
        })
    }

    /// What has broken, if something has.
    pub(super) fn fault(&mut self) -> Option<String> {
        let process = |process: &mut Process| process.check().err().map(|error| error.to_string());
        process(&mut self.pgbench)
            .or_else(|| process(&mut self.ssh))
            .or_else(|| self.web.fault())
    }

    /// Ends all of them and tells what they were. `pg` is somebody who can look at the tables.
    pub(super) fn finish(mut self, pg: &mut Pg) -> Vec<Session> {
        let ended = self.ssh.check().err().map(|error| error.to_string());
        let counted = counted(&read_end(self.ssh.log(), LOG_BYTES).unwrap_or_default());
        let (lines, missing) = match counted {
            Ok(lines) => (lines, None),
            Err(why) => (0, Some(why)),
        };
        let ssh = Session {
            name: "ssh",
            told: format!("{lines} lines of a loop in the guest, none missing"),
            failure: ended.or(missing),
        };
        vec![self.end_pgbench(pg), self.web.finish(), ssh]
    }

    /// pgbench says how many of its transactions were acknowledged: so many must be there.
    fn end_pgbench(&mut self, pg: &mut Pg) -> Session {
        // What its own clock would say at the end of --time.
        self.pgbench.signal(Signal::ALARM);
        let ended = self.pgbench.wait(Instant::now() + END_LIMIT);
        let said = read_end(self.pgbench.log(), LOG_BYTES).unwrap_or_default();
        let mut looked = || -> Result<u64, String> {
            if !ended {
                return Err("it doesn't end".to_owned());
            }
            let told = processed(&said).ok_or_else(|| last_line(&said))?;
            let until = Instant::now() + END_LIMIT;
            let rows = pg
                .query(PGBENCH_SUMS, || Instant::now() < until)
                .map_err(|error| error.to_string())?;
            let values: Vec<&str> = rows
                .iter()
                .flatten()
                .flatten()
                .map(String::as_str)
                .collect();
            judge(told, &values)
        };
        let (done, failure) = match looked() {
            Ok(done) => (done, None),
            Err(why) => (0, Some(why)),
        };
        Session {
            name: "pgbench",
            told: format!(
                "{done} transactions (TPC-B) on {PGBENCH_CLIENTS} connections, all in the tables, \
                 sums right"
            ),
            failure,
        }
    }
}

/// The rows of pgbench's history, and its sums: each transaction adds one number to four tables.
const PGBENCH_SUMS: &str = "SELECT count(*), coalesce(sum(delta), 0), \
    (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
    (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_history";

/// What pgbench's tables say, beside what pgbench itself says.
fn judge(told: u64, values: &[&str]) -> Result<u64, String> {
    let [count, delta, accounts, tellers, branches] = values else {
        return Err(format!("its tables' sums are {values:?}"));
    };
    if *count != told.to_string() {
        return Err(format!(
            "{told} transactions were acknowledged, and {count} are in its history"
        ));
    }
    if [accounts, tellers, branches]
        .iter()
        .any(|sum| *sum != delta)
    {
        return Err(format!(
            "its history's sum is {delta}, those of accounts, tellers and branches are \
             {accounts}, {tellers} and {branches}"
        ));
    }
    Ok(told)
}

/// How many transactions pgbench says it has done, if none has failed.
fn processed(said: &str) -> Option<u64> {
    let after = |head: &str| said.lines().find_map(|line| line.strip_prefix(head));
    let failed = after("number of failed transactions: ").is_none_or(|rest| rest.starts_with("0 "));
    let done = after("number of transactions actually processed: ")?;
    let aborted = said.contains("aborted");
    (failed && !aborted).then(|| done.split('/').next()?.trim().parse().ok())?
}

fn last_line(said: &str) -> String {
    let line = said.lines().last().unwrap_or("nothing");
    format!("it said: {line}")
}

/// How far the shell has counted: each number after the last.
fn counted(said: &str) -> Result<u64, String> {
    let mut last = 0;
    for line in said.lines() {
        if line.parse() != Ok(last + 1) {
            return Err(format!("after {last} came {line:?}"));
        }
        last += 1;
    }
    Ok(last)
}

/// The path of a log of which nothing is left.
fn fresh(files: &Files, name: &str) -> Result<PathBuf, DemoError> {
    let path = files.path(name);
    remove(&path)?;
    Ok(path)
}

fn remove(path: &Path) -> Result<(), DemoError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DemoError::io(path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
