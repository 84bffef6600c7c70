//! The plot of `docs/address-quality.md`, as SVG written by hand.

use std::fmt::Write;

use crate::{
    measure::{Figures, Scored, median},
    rules::Name,
    table::{Runs, bins},
};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 330.0;
const SIDE: f64 = 250.0;
const TOP: f64 = 40.0;

/// Left: excess attempts against coverage, a point for each seed and rule. Right: forecasts against outcomes.
pub fn svg(runs: &Runs) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    coverage(&mut svg, runs);
    calibration(&mut svg, runs.get(&Name::Ours).map_or(&[], Vec::as_slice));
    svg.push_str("</svg>\n");
    svg
}

fn color(name: Name) -> &'static str {
    match name {
        Name::Ours => "#0b6e4f",
        Name::Hour => "#6bbf59",
        Name::Upstream => "#c1121f",
        Name::Go => "#1d70a2",
        Name::Random => "#888888",
        Name::FiveLines => "#e09f3e",
    }
}

fn axes(svg: &mut String, left: f64, title: &str, x: &str, y: &str) {
    let (bottom, middle) = (TOP + SIDE, left + SIDE / 2.0);
    let _ = write!(
        svg,
        "<rect x=\"{left}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#444\"/>\n\
         <text x=\"{middle}\" y=\"{:.0}\" text-anchor=\"middle\" font-size=\"13\">{title}</text>\n\
         <text x=\"{middle}\" y=\"{:.0}\" text-anchor=\"middle\">{x}</text>\n\
         <text transform=\"translate({:.0} {:.0}) rotate(-90)\" text-anchor=\"middle\">{y}</text>\n",
        TOP - 12.0,
        bottom + 32.0,
        left - 32.0,
        TOP + SIDE / 2.0,
    );
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn coverage(svg: &mut String, runs: &Runs) {
    const LEFT: f64 = 60.0;
    // Random order is far outside.
    const MOST: f64 = 1.5;
    let low = 0.8;
    axes(
        svg,
        LEFT,
        "Dials that could succeed",
        "coverage",
        "attempts beyond one per success",
    );
    let x = |coverage: f64| LEFT + SIDE * ((coverage - low) / (1.0 - low)).clamp(0.0, 1.0);
    let y = |excess: f64| TOP + SIDE * (1.0 - (excess / MOST).clamp(0.0, 1.0));
    for tick in 0..=4 {
        let tick = f64::from(tick) / 4.0;
        let (coverage, excess) = (low + (1.0 - low) * tick, MOST * tick);
        label(
            svg,
            x(coverage),
            TOP + SIDE + 15.0,
            "middle",
            &format!("{coverage:.2}"),
        );
        label(
            svg,
            LEFT - 5.0,
            y(excess) + 4.0,
            "end",
            &format!("{excess:.1}"),
        );
    }
    for (row, name) in Name::ALL.into_iter().enumerate() {
        let Some(runs) = runs.get(&name) else {
            continue;
        };
        for run in runs {
            let (x, y, color) = (x(run.coverage()), y(run.excess()), color(name));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\" fill-opacity=\"0.6\"/>"
            );
        }
        let (left, line) = (LEFT + SIDE + 15.0, TOP + 15.0 + 34.0 * row as f64);
        let excess = median(&runs.iter().map(Figures::excess).collect::<Vec<_>>());
        let _ = writeln!(
            svg,
            "<circle cx=\"{left}\" cy=\"{:.1}\" r=\"4\" fill=\"{}\"/>",
            line - 4.0,
            color(name)
        );
        label(svg, left + 8.0, line, "start", name.text());
        label(
            svg,
            left + 8.0,
            line + 13.0,
            "start",
            &format!("median {excess:.2}"),
        );
    }
}

fn calibration(svg: &mut String, runs: &[Figures]) {
    const LEFT: f64 = 495.0;
    axes(
        svg,
        LEFT,
        "This store's forecasts",
        "confidence when offered",
        "share of dials that succeeded",
    );
    let (x, y) = (
        |value: f64| LEFT + SIDE * value,
        |value: f64| TOP + SIDE * (1.0 - value),
    );
    for tick in 0..=4 {
        let tick = f64::from(tick) / 4.0;
        label(
            svg,
            x(tick),
            TOP + SIDE + 15.0,
            "middle",
            &format!("{tick:.2}"),
        );
        label(svg, LEFT - 5.0, y(tick) + 4.0, "end", &format!("{tick:.2}"));
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#aaa\" stroke-dasharray=\"4\"/>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0),
    );
    let scored: Vec<Scored> = runs
        .iter()
        .flat_map(|run| run.offered.iter().copied())
        .collect();
    let all: f64 = scored.iter().map(|scored| scored.weight).sum();
    for (weight, mean, rate) in bins(&scored) {
        let radius = 3.0 + 14.0 * (weight / all).sqrt();
        let (x, y, color) = (x(mean), y(rate), color(Name::Ours));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{color}\" fill-opacity=\"0.6\"/>"
        );
    }
}
