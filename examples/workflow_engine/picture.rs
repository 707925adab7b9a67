//! Memory over time as an SVG in one self-contained HTML file: components stacked, the limit, what
//! is resident, and how tight it was.

use crate::{
    engine::COMPONENTS,
    timeline::{Sample, Timeline},
};
use nebula_memory::{ByteSize, PressureLevel};
use std::fmt::{self, Write};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
/// The plot inside the picture.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 64.0;
/// The band that shows the pressure, below the axis of time.
const BAND: f64 = 10.0;

/// More points than pixels show nothing.
const POINTS: usize = 480;

/// Told apart by colour-blind readers too (Okabe and Ito, 2008), in the order of `COMPONENTS`.
const COLOURS: [&str; COMPONENTS.len()] =
    ["#999999", "#cc79a7", "#e69f00", "#f0e442", "#56b4e9", "#009e73"];

/// What is drawn.
pub(crate) struct Picture<'t> {
    pub(crate) timeline: &'t Timeline,
    pub(crate) limit: Option<u64>,
    /// The report, shown below the picture as it is printed.
    pub(crate) text: String,
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <title>Memory over time</title>\n\
             <style>body{font:14px sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
             svg{width:100%;height:auto}pre{overflow-x:auto}</style>\n\
             <h1>Memory over time</h1>\n",
        )?;
        self.svg(f)?;
        f.write_str(
            "<p>The figures of one moment are read one after the other: where memory moves from one \
             component to another, their sum may seem to pass the limit. The ledger's own peak is \
             exact.</p>\n",
        )?;
        write!(f, "<pre>{}</pre>\n</html>\n", Escaped(&self.text))
    }
}

impl Picture<'_> {
    fn svg(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = thin(&self.timeline.samples);
        let stacked = |sample: &Sample| sample.used.iter().map(|&used| used as u64).sum::<u64>();
        let highest = samples.iter().map(|sample| stacked(sample).max(sample.resident)).max();
        let scale = Scale {
            end: samples.last().map_or(1.0, |sample| sample.at.as_secs_f64()).max(1e-3),
            top: as_f64(highest.unwrap_or(0).max(self.limit.unwrap_or(0)).max(1)) * 1.05,
        };
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>",
        )?;
        scale.axes(f)?;
        let mut below = vec![0; samples.len()];
        for (component, colour) in COLOURS.into_iter().enumerate() {
            let lower = below.clone();
            for (sum, sample) in below.iter_mut().zip(&samples) {
                *sum += sample.used[component] as u64;
            }
            let up = samples.iter().zip(&below);
            let down = samples.iter().zip(&lower).rev();
            let outline = up.chain(down).map(|(sample, &bytes)| scale.point(sample, bytes));
            let name = COMPONENTS[component];
            writeln!(
                f,
                "<polygon fill=\"{colour}\" points=\"{}\"><title>{name}</title></polygon>",
                outline.collect::<Vec<_>>().join(" "),
            )?;
        }
        let resident = samples.iter().map(|sample| scale.point(sample, sample.resident));
        writeln!(
            f,
            "<polyline fill=\"none\" stroke=\"black\" stroke-width=\"1.5\" points=\"{}\"/>",
            resident.collect::<Vec<_>>().join(" "),
        )?;
        if let Some(limit) = self.limit {
            let y = scale.y(as_f64(limit));
            writeln!(
                f,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#d55e00\" \
                 stroke-width=\"2\" stroke-dasharray=\"8 4\"/>",
                WIDTH - RIGHT,
            )?;
        }
        pressure(f, &samples, &scale)?;
        legend(f, self.limit)?;
        f.write_str("</svg>\n")
    }
}

struct Scale {
    /// Seconds at the right edge.
    end: f64,
    /// Bytes at the upper edge.
    top: f64,
}

impl Scale {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, bytes: f64) -> f64 {
        HEIGHT - BOTTOM - bytes / self.top * (HEIGHT - TOP - BOTTOM)
    }

    fn point(&self, sample: &Sample, bytes: u64) -> String {
        format!("{:.1},{:.1}", self.x(sample.at.as_secs_f64()), self.y(as_f64(bytes)))
    }

    fn axes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A power of two that gives four to eight lines.
        let step = (self.top / 4.0).log2().floor().exp2();
        let lines = (0_u32..).map(|line| f64::from(line) * step);
        for bytes in lines.take_while(|&bytes| bytes <= self.top) {
            let (y, label) = (self.y(bytes), mebibytes(bytes));
            writeln!(
                f,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
            )?;
        }
        for part in 0..=4_u32 {
            let seconds = self.end * f64::from(part) / 4.0;
            let (x, y) = (self.x(seconds), HEIGHT - BOTTOM + BAND + 18.0);
            writeln!(
                f,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{seconds:.2} s</text>"
            )?;
        }
        Ok(())
    }
}

fn pressure(f: &mut fmt::Formatter<'_>, samples: &[Sample], scale: &Scale) -> fmt::Result {
    let y = HEIGHT - BOTTOM + 2.0;
    for same in samples.chunk_by(|a, b| a.level == b.level) {
        let from = scale.x(same[0].at.as_secs_f64());
        // Up to where the next level begins.
        let next = samples.iter().find(|sample| sample.at > same[same.len() - 1].at);
        let to = next.map_or(WIDTH - RIGHT, |next| scale.x(next.at.as_secs_f64()));
        let (level, colour) = (same[0].level, level_colour(same[0].level));
        writeln!(
            f,
            "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAND}\" fill=\"{colour}\">\
             <title>pressure {level}</title></rect>",
            to - from,
        )?;
    }
    Ok(())
}

fn legend(f: &mut fmt::Formatter<'_>, limit: Option<u64>) -> fmt::Result {
    let y = HEIGHT - 10.0;
    let mut x = LEFT;
    let components = COMPONENTS.into_iter().zip(COLOURS);
    let lines = [("resident", "black"), ("limit", "#d55e00")];
    let lines = lines.into_iter().filter(|(name, _)| limit.is_some() || *name != "limit");
    let levels = PressureLevel::ALL.iter().map(|&level| (level.as_str(), level_colour(level)));
    for (name, colour) in components.chain(lines).chain(levels) {
        writeln!(
            f,
            "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"10\" height=\"10\" fill=\"{colour}\" \
             stroke=\"#888\"/><text x=\"{:.0}\" y=\"{y}\">{name}</text>",
            y - 9.0,
            x + 14.0,
        )?;
        x += 28.0 + 6.0 * as_f64(name.len() as u64);
    }
    Ok(())
}

const fn level_colour(level: PressureLevel) -> &'static str {
    match level {
        PressureLevel::Normal => "#e5f5e0",
        PressureLevel::Elevated => "#fed976",
        PressureLevel::High => "#fd8d3c",
        PressureLevel::Critical => "#bd0026",
    }
}

/// At most [`POINTS`] samples, each the worst of those that it stands for.
fn thin(samples: &[Sample]) -> Vec<Sample> {
    let each = samples.len().div_ceil(POINTS).max(1);
    samples.chunks(each).filter_map(|few| few.iter().copied().reduce(Sample::worst)).collect()
}

fn mebibytes(bytes: f64) -> String {
    match bytes {
        0.0 => "0".to_owned(),
        _ => format!("{} MiB", bytes / as_f64(ByteSize::mib(1).as_u64())),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture shows a thousandth at best")]
const fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Picture, Sample, Timeline, thin};
    use std::time::Duration;

    #[test]
    fn thinning_keeps_the_peak() {
        let mut samples = vec![Sample::default(); 10_000];
        samples[7777].resident = 9;
        let thinned = thin(&samples);
        assert!(thinned.len() <= 480);
        assert_eq!(thinned.iter().map(|sample| sample.resident).max(), Some(9));
    }

    #[test]
    fn a_picture_has_what_was_recorded_and_no_markup_of_others() {
        let samples = [0, 50, 100].map(|at| Sample {
            at: Duration::from_millis(at),
            used: [1 << 20; 6],
            resident: 9 << 20,
            ..Sample::default()
        });
        let timeline = Timeline { samples: samples.to_vec(), last: None };
        let picture = Picture { timeline: &timeline, limit: Some(8 << 20), text: "<b>".into() };
        let html = picture.to_string();
        assert_eq!(html.matches("<polygon").count(), 6);
        assert_eq!(html.matches("stroke-dasharray").count(), 1);
        assert!(html.contains("&lt;b&gt;") && !html.contains("<b>"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }
}
