//! Results as one HTML page that needs nothing else. Knows outcomes and plots.

use crate::outcome::{Curve, Outcome, Results, SecondOutcome};
use crate::show;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (860, 320);
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{margin-top:2em;font-size:1.2em}pre{background:#f5f5f5;padding:.8em;overflow-x:auto;font-size:12px}\
svg{max-width:100%;height:auto}";

/// Why no page came about.
pub type Failed = Box<dyn std::error::Error>;

/// A line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The page.
///
/// # Errors
/// When a plot cannot be drawn.
pub fn page(results: &Results) -> Result<String, Failed> {
    let (title, command) = match results {
        Results::Run { command, .. } => ("haypile bench", command),
        Results::Comparison { command, .. } => ("haypile bench compare", command),
    };
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1><pre>{}</pre>",
        escape(command)
    );
    match results {
        Results::Run { outcomes, .. } => {
            for outcome in outcomes {
                html.push_str(&format!(
                    "<h2>{}</h2><pre>{}\n{}</pre>",
                    escape(&outcome.test),
                    show::head(),
                    escape(&show::lines(outcome))
                ));
                plots(&mut html, &[(outcome.test.clone(), &outcome.curve, outcome.series.clone())])?;
            }
        }
        Results::Comparison { tests, .. } => {
            for test in tests {
                html.push_str(&format!(
                    "<h2>{}</h2><pre>{}</pre>",
                    escape(&test.test),
                    escape(&show::comparison(test))
                ));
                let sides: Vec<_> = test
                    .sides
                    .iter()
                    .map(|side| {
                        (
                            side.endpoint.clone(),
                            &side.curve,
                            joined(side.turns.iter().map(|turn| &turn.outcome)),
                        )
                    })
                    .collect();
                plots(&mut html, &sides)?;
            }
        }
    }
    html.push_str("</html>\n");
    Ok(html)
}

/// The seconds of several runs, one run after the other.
fn joined<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Vec<SecondOutcome> {
    let mut all: Vec<SecondOutcome> = Vec::new();
    for outcome in outcomes {
        let from = all.last().map_or(0, |last| last.second + 1);
        all.extend(
            outcome
                .series
                .iter()
                .map(|second| SecondOutcome { second: second.second + from, ..second.clone() }),
        );
    }
    all
}

fn plots(html: &mut String, sides: &[(String, &Curve, Vec<SecondOutcome>)]) -> Result<(), Failed> {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let curves = sides.iter().map(|(name, curve, _)| Line {
        name: name.clone(),
        points: curve
            .iter()
            .filter(|(q, _)| *q < 1.0)
            .map(|&(q, us)| (nines(q), (us as f64 / 1000.0).max(0.001)))
            .collect(),
    });
    let percent = |nines: &f64| {
        let text = format!("{:.4}", (1.0 - 10_f64.powf(-nines)) * 100.0);
        text.trim_end_matches('0').trim_end_matches('.').to_owned() + "%"
    };
    html.push_str(&latency_plot("latency by percentile", &curves.collect::<Vec<_>>(), &percent)?);
    let over_time = |figure: fn(&SecondOutcome) -> f64| -> Vec<Line> {
        let line = |(name, _, series): &(String, &Curve, Vec<SecondOutcome>)| Line {
            name: name.clone(),
            points: series.iter().map(|second| (second.second as f64, figure(second))).collect(),
        };
        sides.iter().map(line).collect()
    };
    let seconds = |second: &f64| format!("{second:.0} s");
    html.push_str(&throughput_plot(
        &over_time(|second| second.operations as f64 / second.length_s),
        &seconds,
    )?);
    let p99 = over_time(|second| (second.latency.p99_us as f64 / 1000.0).max(0.001));
    html.push_str(&latency_plot("p99 by second", &p99, &seconds)?);
    Ok(())
}

fn bounds(lines: &[Line]) -> ((f64, f64), (f64, f64)) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
    let least = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    ((0.0, most(|p| p.0).max(1.0)), (least, most(|p| p.1)))
}

/// Milliseconds over something, on a logarithmic scale.
fn latency_plot(title: &str, lines: &[Line], x_label: &dyn Fn(&f64) -> String) -> Result<String, Failed> {
    let ((left, right), (least, most)) = bounds(lines);
    if !least.is_finite() {
        return Ok(String::new());
    }
    draw(title, lines, left..right, ((least * 0.8)..(most * 1.25)).log_scale(), x_label, &|ms| {
        format!("{ms} ms")
    })
}

fn throughput_plot(lines: &[Line], x_label: &dyn Fn(&f64) -> String) -> Result<String, Failed> {
    let ((left, right), (_, most)) = bounds(lines);
    draw("operations by second", lines, left..right, 0.0..(most * 1.1).max(1.0), x_label, &|n| {
        format!("{n:.0}")
    })
}

fn draw<Y>(
    title: &str,
    lines: &[Line],
    x: std::ops::Range<f64>,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Result<String, Failed>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(70)
            .build_cartesian_2d::<std::ops::Range<f64>, Y>(x, y)?;
        chart
            .configure_mesh()
            .x_label_formatter(x_label)
            .y_label_formatter(y_label)
            .light_line_style(WHITE)
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
        }
        if lines.len() > 1 {
            chart
                .configure_series_labels()
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
