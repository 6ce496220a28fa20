mod disks;

use std::path::{Path, PathBuf};

use super::*;

const WHOLE: &str = r#"
name = "shop"
memory = "256M"
on_reset = "exit"
state_dir = "/var/lib/twinvm"
kernel = "images/vmlinux"
initrd = "images/initrd"
cmdline = "console=ttyS0"
arbiter = "file:shared/arbiter"

[[net]]
mac = "52:54:00:12:34:AB"
backend = "lan:lan.sock"

[[node]]
name = "a"
channel = "127.0.0.1:7001"

[[node]]
name = "b"
channel = "[::1]:7002"

[protect]
heartbeat_ms = 20
cold_delay_ms = 0
"#;

fn parse(text: &str) -> Result<VmConfig, VmTomlError> {
    VmConfig::parse(Path::new("vms/VM.toml"), text)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The error of a file with a name and these lines after it, which start at line 2.
fn named(rest: &str) -> String {
    error(&format!("name = \"x\"\n{rest}"))
}

#[test]
fn a_whole_file() {
    let vm = parse(WHOLE).unwrap();
    assert_eq!(
        (vm.name.as_str(), vm.memory_bytes, vm.harts),
        ("shop", 256 << 20, 1)
    );
    assert_eq!(vm.on_reset, OnReset::Exit);
    // Relative to the file, unless absolute.
    assert_eq!(vm.state_dir, PathBuf::from("/var/lib/twinvm"));
    assert_eq!(vm.kernel, Some(PathBuf::from("vms/images/vmlinux")));
    assert_eq!(vm.initrd, Some(PathBuf::from("vms/images/initrd")));
    assert_eq!(vm.cmdline, "console=ttyS0");
    assert_eq!(vm.firmware, None);
    let bare = parse("name = \"x\"\nfirmware = \"fw.elf\"\nconsole = \"virtio\"").unwrap();
    assert_eq!(bare.console, ConsoleKind::Virtio);
    assert_eq!(bare.firmware, Some("vms/fw.elf".into()));
    assert_eq!(vm.arbiter, Some(Arbiter::File("vms/shared/arbiter".into())));
    let mac = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
    assert_eq!(
        vm.nets,
        [Net {
            mac,
            backend: PortAddress::Lan("vms/lan.sock".into())
        }]
    );
    assert_eq!(vm.disks, []);
    assert_eq!(
        vm.nodes[0].channel,
        Channel {
            host: "127.0.0.1".into(),
            port: 7001
        }
    );
    assert_eq!(
        vm.nodes[1].channel,
        Channel {
            host: "::1".into(),
            port: 7002
        }
    );
    assert_eq!(vm.nodes[1].channel.to_string(), "[::1]:7002");
    let protect = Protect {
        heartbeat_ms: 20,
        cold_delay_ms: Some(0),
        ..Protect::default()
    };
    assert_eq!(vm.protect, protect);
    let (own, peer) = vm.pair("b").unwrap();
    assert_eq!((own.name.as_str(), peer.name.as_str()), ("b", "a"));
}

#[test]
fn a_short_file_has_defaults() {
    let vm = parse("name = \"x\"").unwrap();
    assert_eq!((vm.memory_bytes, vm.harts), (DEFAULT_MEMORY_BYTES, 1));
    assert_eq!((vm.on_reset, vm.cmdline.as_str()), (OnReset::Restart, ""));
    assert_eq!(vm.console, ConsoleKind::Uart);
    assert_eq!(vm.state_dir, PathBuf::from("vms/state"));
    assert_eq!((&vm.kernel, &vm.arbiter), (&None, &None));
    let protect = vm.protect;
    assert_eq!(
        (protect.heartbeat_ms, protect.suspect_ms, protect.stall_ms),
        (50, 300, 5000)
    );
    assert_eq!(protect.cold_delay_ms, None);
    assert_eq!(protect.output, OutputFrom::Live);
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    assert_eq!(
        named("memroy = 1"),
        "vms/VM.toml:2: unknown key \"memroy\", did you mean \"memory\"?"
    );
    assert_eq!(
        named("\n[protect]\nsuspect-ms = 1"),
        "vms/VM.toml:4: unknown key \"suspect-ms\" in [protect], did you mean \"suspect_ms\"?"
    );
    assert_eq!(
        named("[[net]]\nspeed = 1"),
        "vms/VM.toml:3: unknown key \"speed\" in [[net]], known are mac, backend"
    );
    assert!(named("[[node]]\nchanel = 1").ends_with("in [[node]], did you mean \"channel\"?"));
    assert!(named("[[disk]]\npth = 1").ends_with("in [[disk]], did you mean \"path\"?"));
    assert!(named("[nodes]").ends_with("unknown key \"nodes\", did you mean \"node\"?"));
    // The first in the file, not in the alphabet.
    assert!(named("zzz = 1\naaa = 1").starts_with("vms/VM.toml:2: unknown key \"zzz\""));
}

#[test]
fn wrong_types_are_named_with_their_line() {
    assert_eq!(
        error("name = 5"),
        "vms/VM.toml:1: name must be a string, found a whole number"
    );
    assert_eq!(
        named("harts = \"2\""),
        "vms/VM.toml:2: harts must be a whole number, found a string"
    );
    assert_eq!(
        named("harts = 1.5"),
        "vms/VM.toml:2: harts must be a whole number, found a fraction"
    );
    assert_eq!(
        named("memory = true"),
        "vms/VM.toml:2: memory must be a size such as \"256M\", or bytes, found true or false"
    );
    assert_eq!(
        named("protect = []"),
        "vms/VM.toml:2: protect must be a table, found a list"
    );
    assert_eq!(
        named("[net]\nmac = \"\""),
        "vms/VM.toml:2: net must be a list of tables ([[net]]), found a table"
    );
    assert_eq!(
        named("node = [1]"),
        "vms/VM.toml:2: node must be a list of tables ([[node]]), found a whole number"
    );
    assert_eq!(
        named("kernel = 1979-05-27"),
        "vms/VM.toml:2: kernel must be a string, found a date"
    );
}

#[test]
fn bad_syntax_has_a_line() {
    let text = named("memory = \"256M");
    assert!(
        text.starts_with("vms/VM.toml:2: not valid TOML: "),
        "{text}"
    );
    let text = named("name = \"y\"");
    assert!(
        text.starts_with("vms/VM.toml:2: not valid TOML: duplicate key"),
        "{text}"
    );
}

#[test]
fn missing_keys_are_named() {
    assert_eq!(error(""), "vms/VM.toml: name is missing");
    assert_eq!(
        named("\n[[net]]"),
        "vms/VM.toml:3: mac is missing in [[net]]"
    );
    assert_eq!(
        named("[[net]]\nmac = \"52:54:00:00:00:01\""),
        "vms/VM.toml:2: backend is missing in [[net]]"
    );
    assert_eq!(
        named("[[disk]]"),
        "vms/VM.toml:2: path is missing in [[disk]]"
    );
    assert_eq!(
        named("[[node]]"),
        "vms/VM.toml:2: name is missing in [[node]]"
    );
    assert_eq!(
        named("[[node]]\nname = \"a\""),
        "vms/VM.toml:2: channel is missing in [[node]]"
    );
}

#[test]
fn memory_is_a_size() {
    let bytes = |value: &str| {
        parse(&format!("name = \"x\"\nmemory = {value}"))
            .unwrap()
            .memory_bytes
    };
    assert_eq!(bytes("\"1G\""), 1 << 30);
    assert_eq!(bytes("\"2048K\""), 2 << 20);
    assert_eq!(bytes("\"2097152\""), 2 << 20);
    assert_eq!(bytes("2097152"), 2 << 20);
    assert_eq!(bytes("0x200000"), 2 << 20);
    assert_eq!(
        named("memory = \"256MB\""),
        "vms/VM.toml:2: memory = \"256MB\": expected whole pages of 4096 bytes, from \"1M\" to \"64G\""
    );
    assert_eq!(
        named("memory = -1"),
        "vms/VM.toml:2: memory = -1: expected whole pages of 4096 bytes, from \"1M\" to \"64G\""
    );
    for bad in [
        "\"\"",
        "\"M\"",
        "\"+1M\"",
        "\"65G\"",
        "\"99999999999999999999G\"",
        "2097153",
        "0",
    ] {
        assert!(
            named(&format!("memory = {bad}")).contains("expected whole pages"),
            "{bad}"
        );
    }
}

#[test]
fn bad_values_are_named() {
    assert_eq!(
        error("name = \"a/b\""),
        "vms/VM.toml:1: name = \"a/b\": expected 1 to 64 letters, digits, - _ . (not first . or -)"
    );
    assert!(error("name = \"..\"").contains("expected 1 to 64"));
    assert!(error("name = \"\"").contains("expected 1 to 64"));
    assert_eq!(
        named("harts = 0"),
        "vms/VM.toml:2: harts = 0: expected 1 to 8"
    );
    assert_eq!(
        named("on_reset = \"stop\""),
        "vms/VM.toml:2: on_reset = \"stop\": expected \"restart\" or \"exit\""
    );
    assert_eq!(
        named("console = \"hvc0\""),
        "vms/VM.toml:2: console = \"hvc0\": expected \"uart\" or \"virtio\""
    );
    assert_eq!(
        named("kernel = \"\""),
        "vms/VM.toml:2: kernel = \"\": expected a path"
    );
    for bad in [
        "shared",
        "nfs:x",
        "file:",
        "tcp:host",
        "tcp:h:0",
        "tcp:h:1/x",
        "tcp:[h]:1",
        "tcp:h:1,h:2",
        "etcd:",
        "etcd:127.0.0.1:1",
        "etcd:https://127.0.0.1",
        "etcd:ftp://127.0.0.1:1",
        "etcd:http://127.0.0.1:1,",
    ] {
        assert_eq!(
            named(&format!("arbiter = \"{bad}\"")),
            format!(
                "vms/VM.toml:2: arbiter = \"{bad}\": \
                 expected \"file:DIR\", \"tcp:HOST:PORT\", \"etcd:http://HOST:PORT\" or \
                 \"etcd:https://HOST:PORT\" (several with commas between them)"
            )
        );
    }
    for bad in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "53:54:00:12:34:56",
        "+2:54:00:12:34:56",
        "00:00:00:00:00:00",
    ] {
        assert_eq!(
            named(&format!("[[net]]\nmac = \"{bad}\"")),
            format!(
                "vms/VM.toml:3: mac = \"{bad}\": \
                 expected a unicast address such as \"52:54:00:12:34:56\""
            )
        );
    }
    for bad in ["eth0", "lan:", "tap:", "tap:a/b", "tap:sixteen-letters-"] {
        let text = named(&format!(
            "[[net]]\nmac = \"52:54:00:12:34:56\"\nbackend = \"{bad}\""
        ));
        assert_eq!(
            text,
            format!(
                "vms/VM.toml:4: backend = \"{bad}\": \
                 expected \"lan:SOCKET\" or \"tap:NAME\" (an interface, 1 to 15 characters)"
            )
        );
    }
    for bad in [
        "host",
        ":1",
        "host:0",
        "host:65536",
        "host:+1",
        "::1:5",
        "[x]:5",
        "a b:1",
    ] {
        assert_eq!(
            named(&format!("[[node]]\nname = \"a\"\nchannel = \"{bad}\"")),
            format!(
                "vms/VM.toml:4: channel = \"{bad}\": expected \"HOST:PORT\" with a port from 1 to 65535"
            )
        );
    }
    assert_eq!(
        named("[protect]\nheartbeat_ms = 0"),
        "vms/VM.toml:3: heartbeat_ms = 0: expected 1 to 3600000"
    );
    let speaking = parse("name = \"x\"\n[protect]\noutput = \"backup\"").unwrap();
    assert_eq!(speaking.protect.output, OutputFrom::Backup);
    assert_eq!(
        named("[protect]\noutput = \"both\""),
        "vms/VM.toml:3: output = \"both\": expected \"live\" or \"backup\""
    );
    assert_eq!(
        named("[[disk]]\nnbd = \"\""),
        "vms/VM.toml:3: nbd = \"\": expected \"nbd://HOST:PORT/EXPORT\", \
         \"nbds://HOST:PORT/EXPORT\" or \"nbd+unix:///EXPORT?socket=PATH\""
    );
}

#[test]
fn values_that_do_not_go_together() {
    assert_eq!(
        error(&WHOLE.replace("name = \"b\"", "name = \"a\"")),
        "vms/VM.toml:20: both nodes are named a: give each its own name"
    );
    assert_eq!(
        error(&WHOLE.replace("[::1]:7002", "127.0.0.1:7001")),
        "vms/VM.toml:21: both nodes have the channel 127.0.0.1:7001: give each its own"
    );
    let node = |n: u32| format!("[[node]]\nname = \"n{n}\"\nchannel = \"127.0.0.1:{n}\"\n");
    assert_eq!(
        named(&node(1)),
        "vms/VM.toml:2: 1 [[node]], expected exactly two (or none, for twinvm run)"
    );
    assert_eq!(
        named(&(node(1) + &node(2) + &node(3))),
        "vms/VM.toml:8: 3 [[node]], expected exactly two (or none, for twinvm run)"
    );
    let net = |n: usize| format!("[[net]]\nmac = \"52:54:00:00:00:{n:02}\"\nbackend = \"lan:s\"\n");
    assert_eq!(
        named(&(net(1) + &net(1))),
        "vms/VM.toml:6: two network cards have the address 52:54:00:00:00:01"
    );
    let nine: String = (1..=9).map(net).collect();
    assert!(named(&nine).ends_with("9 network cards and 0 disks, the board has 8 slots"));
    assert_eq!(
        named("[[disk]]\npath = \"d\"\nnbd = \"nbd://h\""),
        "vms/VM.toml:4: a disk has either path or nbd, not both"
    );
    assert_eq!(
        named("[protect]\nsuspect_ms = 99"),
        "vms/VM.toml:3: suspect_ms = 99 is less than twice heartbeat_ms = 50: \
         one late heartbeat would cause a takeover; set suspect_ms = 100 or more"
    );
}

#[test]
fn what_a_node_has_of_its_own_needs_something_to_replace() {
    let node =
        |n: u32| format!("[[node]]\nname = \"n{n}\"\nchannel = \"127.0.0.1:{n}\"\npath = \"d\"\n");
    let pair = format!("name = \"x\"\n{}{}", node(1), node(2));
    let refused = parse(&pair).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        refused,
        "vms/VM.toml:5: path of a node: the VM's first disk has no file, or there is no [[disk]]"
    );
    parse(&(pair + "[[disk]]\npath = \"c\"\n")).unwrap();

    let vm = parse(&WHOLE.replace("127.0.0.1:7001", "127.0.0.1:7001\"\ntap = \"t"));
    assert_eq!(vm.unwrap().nodes[0].tap.as_deref(), Some("t"));
    for own in ["localhost:1", "127.8.0.1:1"] {
        parse(&WHOLE.replace("127.0.0.1:7001", own)).unwrap();
    }
}

#[test]
fn an_arbiter_on_another_host_needs_keys_of_its_kind() {
    let refused = |rest: &str| {
        let vm = parse(&format!("name = \"x\"\n{rest}"));
        vm.map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(
        refused("arbiter = \"tcp:h:1\""),
        "vms/VM.toml:2: arbiter h:1: without [tls] it must be a loopback address such as 127.0.0.1: \
         make keys as twinvm keys --help shows, and add [tls]"
    );
    assert_eq!(
        refused("arbiter = \"etcd:http://127.0.0.1:1,http://h:1\""),
        "vms/VM.toml:2: arbiter http://h:1: without TLS its members must have loopback addresses such \
         as 127.0.0.1: use https://, and [arbiter_tls]"
    );
    assert_eq!(
        refused("arbiter = \"etcd:https://h:1\""),
        "vms/VM.toml:2: arbiter https://h:1: it takes [arbiter_tls]: ca, whose certificates etcd's \
         members have, and the cert and key of a client that etcd lets in"
    );
    let keys =
        "[arbiter_tls]\nca = \"e/ca.crt\"\ncert = \"e/{name}.crt\"\nkey = \"e/{name}.key\"\n";
    assert_eq!(
        refused(&format!("arbiter = \"file:arb\"\n{keys}")),
        "vms/VM.toml:2: [arbiter_tls] is for etcd's members with https://, and this is \
         file:vms/arb: remove one of them"
    );
    assert!(refused("arbiter = \"etcd:https://h:1\"\n[arbiter_tls]\n").contains("ca is"));
    let vm = parse(&format!(
        "name = \"x\"\narbiter = \"etcd:https://h:1\"\n{keys}"
    ))
    .unwrap();
    let files = vm.arbiter_tls_of("b").unwrap();
    assert_eq!(files.cert, Path::new("vms/e/b.crt"));
    assert_eq!(vm.tls_of("b"), None);
}

#[test]
fn a_channel_between_hosts_needs_keys() {
    let apart = WHOLE.replace("127.0.0.1:7001", "10.0.0.1:7001");
    assert_eq!(
        parse(&apart).unwrap_err().to_string(),
        "vms/VM.toml:17: channel = \"10.0.0.1:7001\": without [tls] it must be a loopback address \
         such as 127.0.0.1: make keys as twinvm keys --help shows, and add [tls]"
    );
    let keys = "\n[tls]\nca = \"k/ca.crt\"\ncert = \"k/{name}.crt\"\nkey = \"/etc/{name}/key\"\n";
    let vm = parse(&(apart.clone() + keys)).unwrap();
    let files = vm.tls_of("a").unwrap();
    assert_eq!(files.ca, Path::new("vms/k/ca.crt"));
    assert_eq!(files.cert, Path::new("vms/k/a.crt"));
    assert_eq!(files.key, Path::new("/etc/a/key"));
    assert_eq!(parse(WHOLE).unwrap().tls_of("a"), None);

    let lines = apart.lines().count();
    for (broken, expected) in [
        (
            keys.replace("ca =", "#"),
            "ca is missing in [tls]".to_owned(),
        ),
        (
            keys.replace("key =", "keys ="),
            "unknown key \"keys\" in [tls], did you mean \"key\"?".to_owned(),
        ),
        (
            keys.replace("\"k/ca.crt\"", "1"),
            "ca must be a string, found a whole number".to_owned(),
        ),
    ] {
        let text = parse(&(apart.clone() + &broken)).unwrap_err().to_string();
        let (place, problem) = text.split_once(": ").unwrap();
        assert_eq!(problem, expected);
        let line: usize = place.rsplit(':').next().unwrap().parse().unwrap();
        assert!(line > lines && line <= lines + 5, "{text}");
    }
}

#[test]
fn a_pair_needs_nodes_and_arbiter() {
    let pair = |text: &str, name: &str| parse(text).unwrap().pair(name).unwrap_err().to_string();
    assert_eq!(
        pair("name = \"x\"", "a"),
        "vms/VM.toml: no [[node]]: a protected VM needs exactly two"
    );
    assert!(
        pair(&WHOLE.replace("arbiter =", "# arbiter ="), "a").starts_with(
            "vms/VM.toml: no arbiter: a protected VM needs one, for instance arbiter = \"file:DIR\""
        )
    );
    let emits = WHOLE.replace("[protect]", "[protect]\noutput = \"backup\"");
    assert_ne!(emits, WHOLE);
    assert_eq!(
        pair(&(emits + "[[disk]]\nnbd = \"nbd://san/x\"\n"), "a"),
        "vms/VM.toml: output = \"backup\" and [[disk]] nbd: only the live node writes to a disk \
         that both reach: leave output out, or give each node a file of its own by path"
    );
    assert_eq!(
        pair(WHOLE, "c"),
        "vms/VM.toml: no node is named c: the nodes are a and b"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let text = VmConfig::load(Path::new("no/such/VM.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("no/such/VM.toml: cannot read the file: "),
        "{text}"
    );
}

#[test]
fn a_hook_is_a_program_with_arguments_and_a_time_limit() {
    let hook = |text: &str| {
        let text = format!("name = \"x\"\n[hooks]\n{text}");
        parse(&text).unwrap().hooks.unwrap()
    };
    let beside = std::path::absolute("vms/bin/tell").unwrap();
    let told = hook("command = \"bin/tell  --to me\"");
    assert_eq!((told.program, told.timeout.as_secs()), (beside, 10));
    assert_eq!(told.args, ["--to", "me"]);
    let told = hook("command = \"/usr/bin/tell\"\ntimeout_s = 600");
    assert_eq!(told.program, PathBuf::from("/usr/bin/tell"));
    assert_eq!(told.timeout.as_secs(), 600);
    // Looked for in PATH.
    assert_eq!(
        hook("command = \"logger x\"").program,
        PathBuf::from("logger")
    );

    let at = |line: &str| error(&format!("name = \"x\"\n[hooks]\n{line}"));
    assert!(
        at("timeout_s = 5").contains("command"),
        "{}",
        at("timeout_s = 5")
    );
    for line in [
        "command = \" \"".to_owned(),
        format!("command = \"{}\"", "x".repeat(2001)),
        "command = [\"a\"]".to_owned(),
        "command = \"x\"\ntimeout_s = 0".to_owned(),
        "command = \"x\"\ntimeout_s = 601".to_owned(),
    ] {
        let told = at(&line);
        assert!(told.starts_with("vms/VM.toml:"), "{told}");
    }
    let told = at("comand = \"x\"");
    assert!(told.contains("command"), "{told}");
}

#[test]
fn figures_have_an_address() {
    let text = |listen: &str| format!("name = \"x\"\n[metrics]\nlisten = {listen}");
    let listen = parse(&text("\"127.0.0.1:9177\"")).unwrap().metrics.unwrap();
    assert_eq!((listen.host.as_str(), listen.port), ("127.0.0.1", 9177));
    for bad in ["\"127.0.0.1\"", "9177", "\":0\""] {
        let told = error(&text(bad));
        assert!(
            told.starts_with("vms/VM.toml:3: ") && told.contains("listen"),
            "{told}"
        );
    }
    assert_eq!(parse("name = \"x\"").unwrap().metrics, None);
}
