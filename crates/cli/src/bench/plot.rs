//! Lines over numbers, as a picture (SVG 1.1).

use std::fmt::Write as _;

/// A picture.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    /// Each has a scale of its own, from nothing to its greatest value.
    pub(super) series: Vec<(&'static str, Vec<(f64, f64)>)>,
}

const SIZE: (f64, f64) = (640.0, 320.0);
/// Left, top, right, bottom of where the lines are.
const FIELD: (f64, f64, f64, f64) = (40.0, 60.0, 600.0, 260.0);
const COLOURS: [&str; 3] = ["#1f6feb", "#bc4c00", "#1a7f37"];

impl Plot {
    /// The file's text.
    pub(super) fn svg(&self) -> String {
        let (width, height) = SIZE;
        let (left, top, right, bottom) = FIELD;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"20\" font-size=\"15\">{}</text>\n\
             <path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#57606a\"/>\n\
             <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
            self.title,
            height - 12.0,
            self.x
        );
        let points = self.series.iter().flat_map(|(_, points)| points);
        let most_x = points.map(|point| point.0).fold(0.0, f64::max).max(1e-9);
        for (number, ((name, points), colour)) in self.series.iter().zip(COLOURS).enumerate() {
            let most = points.iter().map(|p| p.1).fold(0.0, f64::max).max(1e-9);
            let place = |&(x, y): &(f64, f64)| {
                let x = left + (right - left) * x / most_x;
                (x, bottom - (bottom - top) * y / most)
            };
            let mut line = String::new();
            for (at, point) in points.iter().enumerate() {
                let (x, y) = place(point);
                let _ = write!(line, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
                let _ = write!(
                    svg,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n\
                     <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{:.3}</text>\n",
                    x + 5.0,
                    y - 6.0,
                    point.1
                );
                if number == 0 {
                    let _ = writeln!(
                        svg,
                        "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                        bottom + 16.0,
                        point.0
                    );
                }
            }
            let _ = write!(
                svg,
                "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n\
                 <text x=\"{}\" y=\"42\" fill=\"{colour}\">{name}</text>\n",
                left + 240.0 * number as f64
            );
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::Plot;

    #[test]
    fn each_line_fills_the_field_and_ends_where_its_last_point_is() {
        let plot = Plot {
            title: "t",
            x: "ms",
            series: vec![
                ("a", vec![(0.0, 0.5), (20.0, 1.0)]),
                ("b", vec![(0.0, 8.0)]),
            ],
        };
        let svg = plot.svg();
        assert!(svg.contains("d=\"M40.0 160.0L600.0 60.0\""), "{svg}");
        assert!(svg.contains("cx=\"40.0\" cy=\"60.0\""), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        // Nothing to show is a picture, too.
        let empty = Plot {
            series: vec![("a", Vec::new())],
            ..plot
        };
        assert!(empty.svg().ends_with("</svg>\n"));
    }
}
