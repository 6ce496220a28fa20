//! `twinvm keys`: a cluster's certificate authority, and keys for its members.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use twinvm_config::{NAME_EXPECTED, is_name};
use twinvm_host::time::wall_ns;
use twinvm_host::tls::{Authority, CA_CERT, CA_KEY, ISSUE_DAYS, Moment, Subject};

use crate::{BAD_INPUT, Outcome, say};

/// Makes the keys by which the nodes of a cluster, and its arbiter, know each other
///
/// A cluster is whoever has a certificate of its one authority. The nodes' connection is TLS 1.3:
/// each side shows its certificate, and only the very node that is expected is let in.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, for nodes a and b on hosts ha and hb. On a computer of your own:
  twinvm keys init --out authority
  twinvm keys issue --ca authority --name a --out keys-a
  twinvm keys issue --ca authority --name b --out keys-b
  ssh ha mkdir -p vm; scp -pr keys-a ha:vm/keys
  ssh hb mkdir -p vm; scp -pr keys-b hb:vm/keys
and, for `twinvm arbiter serve --keys keys-arbiter` on a third host:
  twinvm keys issue --ca authority --arbiter --out keys-arbiter

and in VM.toml, the same on both hosts, {name} standing for the node's name:
  [tls]
  ca = \"keys/ca.crt\"
  cert = \"keys/{name}.crt\"
  key = \"keys/{name}.key\"

  [[node]]
  name = \"a\"
  channel = \"192.0.2.1:7701\"

  [[node]]
  name = \"b\"
  channel = \"192.0.2.2:7701\"

Keep the folder `authority` where no host can read it: who has its key can be any node. Certificates
end; nodes say so 30 days before. Then issue them again (--force) and copy them over the old ones: a
running node takes the new ones by itself.

Exit codes:
  0    made
  2    bad input, files that are there already, or that can't be written")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Init(InitArgs),
    Issue(IssueArgs),
}

/// Makes a cluster's certificate authority: ca.key and ca.crt, good for ten years
#[derive(Debug, Args)]
#[command(after_help = "Example:
  twinvm keys init --out authority")]
struct InitArgs {
    /// The folder they go to; it is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an authority that is there: what it has issued is worth nothing then
    #[arg(long)]
    force: bool,
}

/// Makes a key and a certificate for one node, or for the arbiter
///
/// Writes NAME.key and NAME.crt (or arbiter.key and arbiter.crt) and the authority's ca.crt: what
/// goes to that host, and to no other.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  twinvm keys issue --ca authority --name a --out keys-a
  twinvm keys issue --ca authority --arbiter --out keys-arbiter")]
#[command(group(clap::ArgGroup::new("whom").required(true).args(["name", "arbiter"])))]
struct IssueArgs {
    /// The folder that `twinvm keys init` made
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The node's name in VM.toml
    #[arg(long)]
    name: Option<String>,
    /// For the arbiter instead of a node
    #[arg(long)]
    arbiter: bool,
    /// The folder they go to; it is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many days the certificate is good for; with its authority it ends at the latest
    #[arg(long, value_name = "N", default_value_t = ISSUE_DAYS,
          value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
    /// Replace a key and certificate of that name
    #[arg(long)]
    force: bool,
}

/// Makes them and says where they are.
pub(crate) fn run(args: KeysArgs) -> Outcome {
    let now_s = i64::try_from(wall_ns() / 1_000_000_000).unwrap_or(i64::MAX);
    let lines = match args.what {
        What::Init(args) => init(&args, now_s),
        What::Issue(args) => issue(args, now_s),
    };
    say::answer(lines.map_err(|why| (BAD_INPUT, why))?)?;
    Ok(0)
}

fn init(args: &InitArgs, now_s: i64) -> Result<String, String> {
    let authority = Authority::new(now_s).map_err(|error| error.to_string())?;
    authority
        .write(&args.out, args.force)
        .map_err(|error| error.to_string())?;
    let until = Moment(authority.validity().not_after_s);
    Ok(format!(
        "certificate {} (until {until})\n\
         key         {}: who has it can be any node; keep it off the hosts\n\
         next        twinvm keys issue --ca {} --name NODE --out DIR",
        shown(&args.out, CA_CERT),
        shown(&args.out, CA_KEY),
        args.out.display()
    ))
}

fn issue(args: IssueArgs, now_s: i64) -> Result<String, String> {
    let subject = match args.name {
        None => Subject::Arbiter,
        Some(name) if !is_name(&name) => {
            return Err(format!("--name {name:?}: expected {NAME_EXPECTED}"));
        }
        // Its files have the names of the arbiter's or the authority's.
        Some(name) if name == "arbiter" || name == "ca" => {
            return Err(format!(
                "--name {name}: no node can have this name: give it another"
            ));
        }
        Some(name) => Subject::Node(name),
    };
    let authority = Authority::open(&args.ca).map_err(|error| error.to_string())?;
    authority
        .check_alive(&args.ca, now_s)
        .map_err(|error| error.to_string())?;
    let validity = authority.span(now_s, args.days);
    let issued = authority
        .issue(&subject, validity)
        .map_err(|error| error.to_string())?;
    authority
        .write_issued(&args.out, &subject, &issued, args.force)
        .map_err(|error| error.to_string())?;
    let stem = subject.file_stem();
    Ok(format!(
        "certificate {} (for {subject}, until {})\n\
         key         {}: for that host alone\n\
         authority   {}",
        shown(&args.out, &format!("{stem}.crt")),
        Moment(validity.not_after_s),
        shown(&args.out, &format!("{stem}.key")),
        shown(&args.out, CA_CERT),
    ))
}

fn shown(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
