// The token comes in the address's fragment, which no browser sends. It is exchanged for a cookie.
const form = document.getElementById("enter");
const trouble = document.getElementById("trouble");

async function enter(token) {
  const answer = await fetch("/enter", { method: "POST", body: new URLSearchParams({ token }) });
  if (answer.ok) location.replace("/");
  else trouble.textContent = (await answer.json()).error;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  enter(form.token.value.trim());
});
const token = location.hash.slice(1);
if (token) {
  history.replaceState(null, "", "/enter");
  enter(token);
}
