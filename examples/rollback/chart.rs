//! Bars, in the terminal and as SVG.

/// A chart of one figure over the variants.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    title: &'static str,
    /// Name and value; a value that was not measured has none.
    bars: Vec<(String, Option<f64>)>,
}

const TEXT_WIDTH: f64 = 48.0;
const BAR_WIDTH: f64 = 420.0;
const ROW: usize = 22;

impl Chart {
    pub(crate) fn new(title: &'static str, bars: Vec<(String, Option<f64>)>) -> Self {
        Self { title, bars }
    }

    /// The bar's share of the longest one, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let longest = self.bars.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max);
        if longest > 0.0 { value / longest } else { 0.0 }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        for (name, value) in &self.bars {
            let (bar, figure) = match value {
                Some(value) => ("█".repeat((self.share(*value) * TEXT_WIDTH).round() as usize), show(*value)),
                None => (String::new(), "unbounded".to_owned()),
            };
            text.push_str(&format!("  {name:<22} {bar} {figure}\n"));
        }
        text
    }

    fn height(&self) -> usize {
        ROW * (self.bars.len() + 2)
    }

    fn svg_group(&self, top: usize) -> String {
        let mut group = format!("<text x=\"16\" y=\"{}\" class=\"title\">{}</text>\n", top + ROW, self.title);
        for (row, (name, value)) in self.bars.iter().enumerate() {
            let y = top + ROW * (row + 1) + 8;
            let width = value.map_or(0.0, |value| self.share(value) * BAR_WIDTH);
            let figure = value.map_or_else(|| "unbounded".to_owned(), show);
            group.push_str(&format!(
                "<text x=\"16\" y=\"{text}\">{name}</text><rect x=\"180\" y=\"{y}\" width=\"{width:.1}\" \
                 height=\"14\" class=\"bar{row}\"/><text x=\"{end:.1}\" y=\"{text}\">{figure}</text>\n",
                text = y + 12,
                end = 186.0 + width,
            ));
        }
        group
    }
}

fn show(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// All charts, one below the other.
pub(crate) fn to_svg(charts: &[Chart]) -> String {
    let height: usize = charts.iter().map(Chart::height).sum();
    let mut body = String::new();
    let mut top = 0;
    for chart in charts {
        body.push_str(&chart.svg_group(top));
        top += chart.height();
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<style>.title{{font-weight:bold}} .bar0{{fill:#2a7}} \
         .bar1,.bar2,.bar3{{fill:#c63}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}
