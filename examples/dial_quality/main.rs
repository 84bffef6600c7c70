mod measure; mod random; mod rules; mod trace;
use std::num::NonZeroUsize;
fn main() {
    let seed = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(101);
    let trace = trace::Trace::new(trace::Settings{seed, days: 10, peers: 2000, lies: 0.3, private: true});
    let dials = trace.events.iter().filter(|(_, e)| matches!(e, trace::Event::Dial{..})).count();
    println!("{} events {dials} dials", trace.events.len());
    for name in rules::Name::ALL {
        let t = std::time::Instant::now();
        let f = measure::run(&trace, name, NonZeroUsize::new(100_000).unwrap(), measure::Dialling::Sequential);
        println!("{:20} reach {:.3} cov {:.3} (at once {:.3}) excess {:.3} first {:.3}/{} wasted {:.2} started {:.2} kept {:.2} starts {:?} {:?}",
            name.text(), f.reachable as f64/(f.reachable+f.unreachable) as f64, f.coverage(), f.coverage_at_once(), f.excess(), f.first(), f.choices, f.wasted(), f.started(), f.kept(), f.starts.each_ref().map(|s| measure::median(s)), t.elapsed());
    }
}
