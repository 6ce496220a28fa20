//! The model by hand: wider bounds than the tests have time for.

use std::process::ExitCode;
use std::time::Instant;

use stateright::Model;
use twinvm_model::action::Action;
use twinvm_model::explore::{Report, explore};
use twinvm_model::model::{Goal, Protocol};
use twinvm_model::rules::Broken;
use twinvm_model::scope::{From, Scope};

const HELP: &str = "\
Looks at every state of the protocol within bounds.

usage: twinvm-model [--faults N] [--requests N] [--inputs N] [--from-pair] [--cold-delay]
                    [--wipe] [--output-backup] [--disks] [--people] [--broken RULE]
                    [--max-states N] [--trace]

  --faults N       crashes, broken connections, unknown outcomes (1)
  --requests N     poweroff, stop, takeover, detach, SIGTERM (0)
  --inputs N       inputs of the guest (1)
  --from-pair      begin with a protected pair instead of two empty hosts
  --cold-delay     cold_delay_ms is set
  --wipe           the arbiter loses its record once (progress is not looked at then)
  --output-backup  the backup emits (the option output of VM.toml)
  --disks          the VM has replicated disks
  --people         the same, and people reset the record (a request) and start nodes by force
  --broken RULE    break a rule on purpose; --broken list names them
  --max-states N   give up there (100000000; each takes about 90 bytes)
  --trace          print the world after each step of a way that is found

example: twinvm-model --faults 2 --requests 1 --inputs 1";

struct Options {
    protocol: Protocol,
    max_states: usize,
    trace: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        protocol: Protocol::new(Scope::new(1, 0, 1)),
        max_states: 100_000_000,
        trace: false,
    };
    while let Some(argument) = arguments.next() {
        let scope = &mut options.protocol.scope;
        let bounds = &mut scope.bounds;
        let mut number = |max: u32| -> Result<u32, String> {
            let value = arguments.next().and_then(|v| v.parse().ok());
            let value = value.filter(|v| *v <= max);
            value.ok_or_else(|| format!("{argument} takes a number up to {max}"))
        };
        match argument.as_str() {
            "--faults" => bounds.faults = number(4)? as u8,
            "--requests" => bounds.requests = number(4)? as u8,
            "--inputs" => bounds.inputs = number(8)? as u8,
            "--max-states" => options.max_states = number(u32::MAX - 1)? as usize,
            "--from-pair" => scope.from = From::Pair,
            "--cold-delay" => bounds.cold_delay = true,
            "--wipe" => bounds.wipes = 1,
            "--output-backup" => scope.backup_speaks = true,
            "--disks" => scope.disks = true,
            "--people" => {
                (scope.disks, scope.people) = (true, true);
                options.protocol.goal = Goal::ProtectedByForce;
            }
            "--trace" => options.trace = true,
            "--broken" => {
                let name = arguments.next().unwrap_or_default();
                let mut rules = Broken::ALL.iter().copied();
                let Some(rule) = rules.find(|rule| format!("{rule:?}") == name) else {
                    return Err(format!("the rules are {:?}", Broken::ALL));
                };
                options.protocol.broken = Some(rule);
            }
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other} is no option; see --help")),
        }
    }
    Ok(Some(options))
}

fn show(options: &Options, way: &[Action]) {
    let mut world = options.protocol.init_states()[0];
    for (index, action) in way.iter().enumerate() {
        println!("{:>4} {:?} {:?}", index + 1, action.at, action.what);
        if let Some(next) = options.protocol.next_state(&world, *action) {
            world = next;
        }
        if options.trace {
            println!("{world:#?}");
        }
    }
    println!("     {:?}", world.wrong);
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("error: {what}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let report: Report<Action> = explore(&options.protocol, options.max_states);
    println!("{}", options.protocol.scope);
    println!("{report}, {:.1} s", begun.elapsed().as_secs_f64());
    let wrong = report.wrong.as_deref();
    let stuck = (!options.protocol.loses_record())
        .then_some(report.stuck_by.as_deref())
        .flatten();
    if let Some(way) = wrong {
        println!("something wrong is seen after {} steps:", way.len());
        show(&options, way);
    } else if let Some(way) = stuck {
        println!("no way back to a protected pair after {} steps:", way.len());
        show(&options, way);
    } else if report.complete {
        println!("holds");
        return ExitCode::SUCCESS;
    } else {
        println!("nothing found, but not all states were seen: raise --max-states");
    }
    ExitCode::FAILURE
}
