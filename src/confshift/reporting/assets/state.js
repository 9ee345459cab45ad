// State that the rest of the script shares: the data, the page's elements, the current choice.

const [aboutPairs, aboutSamples] = await Promise.all(["data", "sample-data"].map(id => unpack(id).json()));
const data = {...aboutPairs, samples: aboutSamples};
const pairs = new Pairs(data), views = new Views(pairs);
const charts = new Map();  // by figure id: {figure, view, rows: by table, as drawn; drawn: the state that they belong to}
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
let state = {before: data.pair[0], after: data.pair[1], scale: "probability", span: "near", only: null, pinned: null, values: {}};

// A text in the words for the run's rows, as `Vocabulary.say` writes it: once, where it is shown.
const words = new RegExp(data.words.pattern, "g");
function say(text) {
  const {pattern, ...nouns} = data.words;
  if (Object.entries(nouns).every(([word, noun]) => word === noun)) return text;
  return String(text).replace(words, (all, name, word, plural) => {
    if (name) return all;
    const noun = nouns[word.toLowerCase()];
    return (/[A-Z]/.test(word[0]) ? noun[0].toUpperCase() + noun.slice(1) : noun) + plural;
  });
}

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = say(text);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
