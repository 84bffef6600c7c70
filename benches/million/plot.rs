//! The plot of `docs/benchmarks.md`, as SVG written by hand: each figure as a part of what its target allows.

use std::fmt::Write;

use crate::bed::row::Row;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 420.0;
const BAR: f64 = 16.0;
const LINE: f64 = 22.0;
const TOP: f64 = 46.0;
/// The ends of the logarithmic scale, as powers of ten.
const LOW: f64 = -3.0;
const HIGH: f64 = 3.0;

pub fn svg(rows: &[Row]) -> String {
    let bars: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((row, row.part?)))
        .collect();
    let bottom = TOP + LINE * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{:.1}\" y=\"16\" text-anchor=\"middle\" font-size=\"13\">what was reached, as a part of what the target allows</text>\n",
        bottom + 12.0,
        (LEFT + WIDTH) / 2.0,
    );
    for power in LOW as i32..=HIGH as i32 {
        let (part, x) = (10_f64.powi(power), x(10_f64.powi(power)));
        let (color, dash) = match power {
            0 => ("#444", ""),
            _ => ("#ccc", " stroke-dasharray=\"3\""),
        };
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{part}</text>\n\
             <line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{color}\"{dash}/>\n",
            TOP - 12.0,
            TOP - 6.0,
        );
    }
    for (at, (row, part)) in bars.into_iter().enumerate() {
        bar(&mut svg, TOP + LINE * at as f64, row, part);
    }
    svg.push_str("</svg>\n");
    svg
}

/// From the target's line to the left what it leaves, to the right what exceeds it.
fn bar(svg: &mut String, y: f64, row: &Row, part: f64) {
    let (one, end) = (x(1.0), x(part));
    let color = if part <= 1.0 { "#0b6e4f" } else { "#c1121f" };
    let what = row.what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{what}</text>\n\
         <rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\" fill-opacity=\"0.75\"/>\n",
        LEFT - 8.0,
        y + BAR - 4.0,
        one.min(end),
        (one - end).abs().max(1.0),
    );
}

fn x(part: f64) -> f64 {
    let power = part.max(f64::MIN_POSITIVE).log10().clamp(LOW, HIGH);
    LEFT + (WIDTH - LEFT - 20.0) * (power - LOW) / (HIGH - LOW)
}
