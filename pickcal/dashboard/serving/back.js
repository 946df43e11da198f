// Runs in the browser when Bokeh is connected again: the next loss begins to count anew.

delete window.pickcal_connection;
document.getElementById("pickcal-connection")?.remove();
