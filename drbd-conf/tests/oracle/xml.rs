//! As much of XML as `drbdadm dump-xml` writes.

/// An element, or a comment, whose name is then `!--`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

impl Element {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'e>(&'e self, name: &'e str) -> impl Iterator<Item = &'e Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Everything, within an element without a name.
pub(crate) fn parse(text: &str) -> Element {
    let mut open = vec![Element::default()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        open.last_mut().expect("open").text.push_str(&meant(before.trim()));
        if let Some(comment) = after.strip_prefix("!--") {
            let (comment, next) = comment.split_once("-->").expect("a comment's end");
            let comment = Element { name: "!--".into(), text: comment.to_owned(), ..Element::default() };
            open.last_mut().expect("open").children.push(comment);
            rest = next;
            continue;
        }
        let (tag, next) = after.split_once('>').expect("a tag's end");
        rest = next;
        match tag.strip_prefix('/') {
            Some(_) => close(&mut open),
            None => {
                open.push(element(tag.trim_end_matches('/')));
                // drbdadm never closes its element template.
                if tag.ends_with('/') || tag.starts_with("template") {
                    close(&mut open);
                }
            }
        }
    }
    assert_eq!(open.len(), 1, "elements are not closed: {text}");
    open.remove(0)
}

fn close(open: &mut Vec<Element>) {
    let element = open.pop().expect("an element that is open");
    open.last_mut().expect("one around it").children.push(element);
}

fn element(tag: &str) -> Element {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    let mut attributes = Vec::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"').expect("a value's end");
        attributes.push((name.trim().to_owned(), meant(value)));
        rest = next;
    }
    Element { name: name.to_owned(), attributes, ..Element::default() }
}

fn meant(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&amp;", "&")
}
