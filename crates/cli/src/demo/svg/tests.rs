use super::super::timeline::Gap;
use super::*;

fn kill(at_ms: u64, pause_ms: u64) -> Kill {
    Kill {
        node: if (at_ms / 1000).is_multiple_of(2) {
            "a"
        } else {
            "b"
        },
        at_us: at_ms * 1000,
        pause: Some(Gap {
            start_us: at_ms * 1000 - 300,
            end_us: (at_ms + pause_ms) * 1000 - 300,
        }),
        takeover: None,
        protected_us: Some((at_ms + pause_ms + 900) * 1000),
        reprotect_ms: Some(400.0),
        join_pause_ms: None,
    }
}

/// A client that has an answer about each millisecond, but for the pauses.
fn times(end_ms: u64, kills: &[Kill]) -> Vec<u64> {
    (0..end_ms * 1000)
        .step_by(700)
        .map(|at| at + at * 7919 % 600)
        .filter(|at| {
            let inside = |gap: Gap| (gap.start_us..gap.end_us).contains(at);
            let paused = |kill: &Kill| kill.pause.is_some_and(inside);
            !kills.iter().any(paused)
        })
        .collect()
}

fn draw(end_ms: u64, kills: &[Kill]) -> String {
    let times = times(end_ms, kills);
    let chart = Chart {
        times_us: &times,
        kills,
        title: "One connection",
        what: "answers",
        subtitle: format!("{} answers, a < b & c", times.len()),
    };
    let svg = chart.draw();
    // To look at: DEMO_SVG_DIR=/tmp cargo test … svg
    if let Some(dir) = std::env::var_os("DEMO_SVG_DIR") {
        let name = format!("demo-{}.svg", kills.len());
        std::fs::write(std::path::Path::new(&dir).join(name), &svg).unwrap();
    }
    svg
}

/// Every element is closed, and there is no `NaN` or `inf` among the numbers.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = |tag: &str| tag.split([' ', '/']).next().unwrap().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "{svg}");
        } else if !tag.ends_with('/') {
            open.push(name(tag));
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn each_kill_is_marked_and_its_pause_named() {
    let kills = [
        kill(4_000, 412),
        kill(9_000, 371),
        kill(15_500, 389),
        kill(16_900, 640),
    ];
    let svg = draw(21_000, &kills);
    assert_well_formed(&svg);
    for (kill, pause) in kills.iter().zip([412, 371, 389, 640]) {
        let label = format!(">kill {}: {pause} ms<", kill.node);
        assert!(svg.contains(&label), "{label}");
        assert!(svg.contains(&format!(">{pause} ms<")), "from near");
    }
    assert!(svg.contains(">answers per 10 ms<"));
    assert!(svg.contains(">seconds since the client's start<"));
    assert!(svg.contains(">milliseconds since the kill<"));
    assert!(svg.contains("a &lt; b &amp; c"));
}

#[test]
fn with_many_kills_only_the_longest_pause_is_labelled() {
    let kills: Vec<Kill> = (1..=50).map(|n| kill(n * 3_000, 300 + n % 7)).collect();
    let svg = draw(155_000, &kills);
    assert_well_formed(&svg);
    assert_eq!(svg.matches(": 306 ms<").count(), 1);
    assert_eq!(svg.matches(">kill ").count(), 1 + MAX_NEAR + 1);
    assert!(svg.contains(">answers per 100 ms<"));
    assert!(svg.contains("The 4 longest pauses from near"));
    assert!(svg.len() < 1 << 20, "{} bytes", svg.len());
}

#[test]
fn nothing_at_all_can_be_drawn() {
    assert_well_formed(&draw(0, &[]));
    let unfinished = Kill {
        pause: None,
        protected_us: None,
        ..kill(500, 1)
    };
    assert_well_formed(&draw(600, &[unfinished]));
}

#[test]
fn a_kill_right_after_the_start_can_be_drawn() {
    let early = Kill {
        at_us: 10,
        pause: Some(Gap {
            start_us: 5,
            end_us: 400_000,
        }),
        ..kill(1_000, 1)
    };
    assert_well_formed(&draw(2_000, &[early]));
}

#[test]
fn steps_are_round() {
    for (span, ticks, step) in [
        (21.0, 12, 2.0),
        (10.0, 5, 2.0),
        (9.0, 10, 1.0),
        (0.9, 3, 0.5),
        (700.0, 4, 200.0),
    ] {
        let found = tick_step(span, ticks);
        assert!((found - step).abs() < 1e-9, "{span}/{ticks}: {found}");
    }
    assert!(nice_max(&[]) > 0.0);
    assert!(nice_max(&[3, 17, 4]) > 17.0);
}
